"""What a person looks at: reconstructions, colors, curves."""
