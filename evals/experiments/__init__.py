"""Single measurements that are not part of a benchmark."""
