"""Reading, cropping and comparing images; decoding in a sandbox."""
