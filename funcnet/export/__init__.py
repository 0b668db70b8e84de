"""Out of here: a trained model in files that others read, a file a format."""
