"""What the bytes of image files say: sizes, orientation, palettes, and pixels where decoders disagree. No OpenCV here."""
