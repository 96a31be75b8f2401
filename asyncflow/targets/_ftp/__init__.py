"""What ``FTPTarget`` is made of: connections, a pool of them, questions, downloads and uploads."""
