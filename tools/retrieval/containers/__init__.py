"""Files that contain images, read in place: tar shards, Parquet files and Arrow files."""
