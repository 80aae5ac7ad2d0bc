"""What `pipeline.doctor` looks at, each thing in a process of its own.

`isolation` runs a question in such a process, and `questions` are those that are asked: of
packages, of FFmpeg (`video`), of devices, of engines (`trial`, which has `parity` compare what two
of them found). `selftest` knows which engines to ask, `verdict` draws the conclusion, and `page`
shows it. The process that asks imports the standard library alone, and `rich` at the end.
"""
