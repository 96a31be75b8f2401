"""What `S3Target` is made of."""
