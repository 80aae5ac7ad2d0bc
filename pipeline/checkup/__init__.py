"""What `pipeline.doctor` looks at, each thing in a process of its own.

`isolation` runs a question in such a process; `machine`, `packages`, `video`, `gpu` and `runtimes`
are what is asked, `trial` runs an engine on drawn frames and `parity` compares two of them;
`verdict` draws the conclusion and `page` shows it all. Nothing here imports more than the
standard library at the top but what only ever runs in the other process.
"""
