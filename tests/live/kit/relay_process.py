"""A media server: GStreamer's RTSP server takes a stream at ``/in`` and plays it at ``/out``.

Run by the system's Python, which has the GStreamer bindings and no package of ours::

    /usr/bin/python3 relay_process.py PORT UDP_PORT

It prints ``ready`` when it listens, and ends when its input ends. Between its two halves the
stream goes over the UDP port.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  (after its version)

IN = (
    "( rtph264depay name=depay0 ! h264parse config-interval=-1 ! rtph264pay pt=96 "
    "! udpsink host=127.0.0.1 port={port} sync=false async=false )"
)
OUT = (
    "( udpsrc address=127.0.0.1 port={port} buffer-size=4000000 caps=application/x-rtp,"
    "media=video,encoding-name=H264,payload=96,clock-rate=90000 "
    "! rtph264depay ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


def factory(launch, mode, who):
    """One mount."""
    made = GstRtspServer.RTSPMediaFactory()
    made.set_transport_mode(mode)
    made.set_latency(0)
    made.set_shared(True)
    made.set_launch(launch)
    role = f"{who}, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    made.add_role_from_structure(Gst.Structure.new_from_string(role))
    return made


def main(port, udp_port):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_thread_pool().set_max_threads(4)  # who waits for a stream holds up nobody
    mounts, modes = server.get_mount_points(), GstRtspServer.RTSPTransportMode
    mounts.add_factory("/in", factory(IN.format(port=udp_port), modes.RECORD, "sender"))
    mounts.add_factory("/out", factory(OUT.format(port=udp_port), modes.PLAY, "viewer"))
    if not server.attach(None):
        raise OSError(f"cannot listen on port {port}")
    loop = GLib.MainLoop()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


main(*sys.argv[1:])
