"""Networks: layers, papers, training, evaluation and export. Knows tensors, not time.

Importing this package imports nothing else; its modules need torch (``pip install .[models]``).
"""
