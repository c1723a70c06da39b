"""Averages of CLIP variants, and what the commands about models do."""
