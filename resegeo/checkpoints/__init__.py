"""CLIP checkpoints: where they come from, what form they have, what they are, and whether they are sound."""
