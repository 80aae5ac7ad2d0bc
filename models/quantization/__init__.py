"""Precision written into a model file's graph: int8 or float8 by Q/DQ nodes, float16 by casts.

| file | holds |
|---|---|
| `layers` | which layers may lose precision |
| `frames` | what to calibrate on |
| `noise` | what a layer's rounding does to its outputs |
| `eight_bits` | int8 and float8, and what suits float8 |
| `qdq` | the graph in int8 or float8 |
| `half` | the float16 graph |
| `agreement` | whether two files find the same |
| `origin` | which file a rounded one was made from |
| `gate` | whether the result is good enough, and what to give back to float |
"""
