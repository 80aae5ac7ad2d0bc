"""Precision written into the graph of a model file: int8 by Q/DQ nodes, or float16 by casts.

| file | holds |
|---|---|
| `layers` | which layers may lose precision |
| `frames` | what to calibrate on |
| `noise` | what a layer's rounding does to its outputs |
| `qdq` | the int8 graph |
| `half` | the float16 graph |
| `agreement` | whether two files find the same |
| `origin` | which file a rounded one was made from |
| `gate` | whether the result is good enough, and what to give back to float |
"""
