"""Fake cameras: real servers on this machine that fail on command.

`cameras.CameraServer` is GStreamer's RTSP server in a process of its own, `mjpeg.MjpegServer`
a camera that speaks HTTP, `odd_servers.OddServer` whatever accepts a connection and then does
something else. Every picture carries its number and the time it was painted; `reading.read_painted`
gives them back.
"""
