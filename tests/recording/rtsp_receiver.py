"""A server that takes what is announced to it: GStreamer's RTSP server in RECORD mode.

Run by the system's Python, which has the GStreamer bindings and no package of ours::

    /usr/bin/python3 rtsp_receiver.py PORT FOLDER [USER PASSWORD]

It takes ``/cam``, appends the H.264 of each connection to a file ``000.h264``, ``001.h264``... in
the folder, prints ``ready`` when it listens, and ends when its input ends.
"""

import itertools
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  (after its version)

LINE = (
    "( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au "
    "! filesink name=file buffer-mode=unbuffered sync=false location=/dev/null )"
)


def factory(folder):
    """Takes streams; each goes into a file of its own."""
    taking = GstRtspServer.RTSPMediaFactory()
    taking.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    taking.set_latency(0)
    taking.set_launch(LINE)
    role = "sender, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    taking.add_role_from_structure(Gst.Structure.new_from_string(role))
    numbers = itertools.count()

    def configure(_factory, media):
        file = media.get_element().get_by_name_recurse_up("file")
        file.set_property("location", f"{folder}/{next(numbers):03d}.h264")

    taking.connect("media-configure", configure)
    return taking


def guard(user, password):
    """Only that user, by digest."""
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "sender")
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    return auth


def main(port, folder, *login):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if login:
        server.set_auth(guard(*login))
    server.get_mount_points().add_factory("/cam", factory(folder))
    if not server.attach(None):
        raise OSError(f"cannot listen on port {port}")
    loop = GLib.MainLoop()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


main(*sys.argv[1:])
