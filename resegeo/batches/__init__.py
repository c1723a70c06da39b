"""Many scenes: manifests, where results go, scheduling, mosaics."""
