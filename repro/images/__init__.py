"""Container images as bytes: written layer by layer, read from and put into registries."""
