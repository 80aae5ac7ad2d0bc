"""What cameras and servers that video is pushed to have in common.

Addresses with secrets in them, why a connection failed, and when it is tried again.
"""
