"""The trainer that streams shards to the GPU. It never decodes an image and never imports sbprep."""
