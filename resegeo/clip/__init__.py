"""CLIP used densely: attention under masks, the encoder, scores, and overlapping windows blended into classes."""
