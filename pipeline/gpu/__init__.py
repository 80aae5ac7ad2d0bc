"""Pictures that stay in a GPU's memory, from its decoder to the engine and to its encoder.

torch and Triton are imported inside of functions: nobody pays for them where no GPU decodes.
None of it has met a GPU. What could be shown without one is shown: the kernels run in Triton's
interpreter on pictures that were decoded here and are compiled for real chips, the line runs on
stand-ins (``tests/pipeline/on_gpu``).

*Order.* FFmpeg, torch and the kernels work in one context of CUDA, and there on its default
stream: one thing is done after the other as it was asked for, and memory that is given back is
not written to before all that was to read it has. Engines have streams of their own; they wait for
`DeviceImages.ready`.

| file | holds |
|---|---|
| `driver` | the driver's libraries, and the context that all share |
| `pictures` | whether a picture lies on the GPU, its planes, and the way to main memory |
| `images` | a batch of images on the GPU |
| `kernels` | the code that runs on the GPU |
| `preprocess` | from pictures to images, and whether that works here |
| `canvas` | drawing, to the numbers of `pipeline.drawing.canvas` |
| `orders` | what is to be drawn, written down for one kernel |
| `painting` | the kernels that draw |
| `trial` | whether drawing works here |
| `memory` | a picture of our own there, and the stream that it is made in |
"""
