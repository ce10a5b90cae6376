"""What a pretrained network is worth: fine-tuning, probes, neighbors, clusters, features."""
