"""The cameras themselves: GStreamer's RTSP server, told what to do by lines of JSON.

Run by the system's Python, which has the GStreamer bindings and no package of ours::

    /usr/bin/python3 camera_process.py PORT [USER PASSWORD basic|digest]

It prints ``{"ready": true}``, obeys one command a line (``{"do": "listen"}``, see `COMMANDS`) with
one answer a line, and ends when its input ends.
"""

import json
import random
import sys
import threading
import time
from collections import deque
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  (after its version)

sys.path.append(str(Path(__file__).parents[3]))
from painting import Painter  # noqa: E402  (after its path)

H264 = (
    "x264enc name=encoder tune=zerolatency speed-preset=ultrafast threads=1 bitrate={kbit} "
    "key-int-max={keyframe_every} ! video/x-h264,profile=constrained-baseline ! "
    "breakmydata name=damage probability=0 ! "
    "rtph264pay name=pay0 pt=96 config-interval=1 timestamp-offset={first_timestamp}"
)
PICTURES = (
    "appsrc name=pictures is-live=true format=time min-latency=0 "
    "caps=video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 ! "
)
LINES = {
    "h264": PICTURES + H264,
    "mjpeg": PICTURES + "jpegenc quality=85 ! rtpjpegpay name=pay0 pt=26",
    "sound": "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8",
    # A payload that nobody else knows.
    "unknown": PICTURES + "rtpgstpay name=pay0 pt=96",
}
MOST_HELD = 250
RTP_RATE = 90_000


class Mount:
    """One camera: what it sends, and what is wrong with it."""

    def __init__(self, options):
        self.options = options
        self.fps = options["fps"]
        self.number = 0
        self.held = deque(maxlen=MOST_HELD)
        self.stalled = False
        self.shift = 0
        self.resending = False
        self.damage = 0.0
        self.loss = 0.0
        self.random = random.Random(options["seed"])
        self.lock = threading.Lock()
        self.media = []
        self.factory = GstRtspServer.RTSPMediaFactory()
        self.factory.set_shared(True)
        self.factory.connect("media-configure", self.configure)
        role = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        self.factory.add_role_from_structure(Gst.Structure.new_from_string(role))
        self.apply()

    def apply(self):
        """Use the options for whoever connects from now on."""
        self.fps = self.options["fps"]
        self.painter = Painter(self.options["width"], self.options["height"])
        line = LINES[self.options["codec"]].format(**self.options)
        self.factory.set_launch(f"( {line} )")

    def configure(self, _factory, media):
        element = media.get_element()
        pay = element.get_by_name_recurse_up("pay0")
        kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        pay.get_static_pad("src").add_probe(kinds, self.tamper)
        pictures = element.get_by_name_recurse_up("pictures")
        if pictures is None:
            return
        damage = element.get_by_name_recurse_up("damage")
        over = threading.Event()
        media.connect("unprepared", lambda _media: over.set())
        media.connect("prepared", self.report_when_painted)
        worker = threading.Thread(
            target=self.paint, args=(pictures, damage, self.painter, over), daemon=True
        )
        worker.start()

    def report_when_painted(self, media):
        """Have sender reports tell when a picture was made; else they tell when it was sent."""
        line = media.get_element().get_parent()
        _, session = line.iterate_all_by_element_factory_name("rtpbin").next()
        session.set_property("rtcp-sync-send-time", False)

    def tamper(self, pad, info):
        """Lose packets and shift their timestamps; leave alone what needs neither."""
        if self.resending or not (self.loss or self.shift):
            return Gst.PadProbeReturn.OK
        is_list = info.type & Gst.PadProbeType.BUFFER_LIST
        packets = info.get_buffer_list() if is_list else None
        count = packets.length() if packets else 1
        self.resending = True
        for index in range(count):
            packet = packets.get(index) if packets else info.get_buffer()
            if self.random.random() >= self.loss:
                pad.push(self.shifted(packet))
        self.resending = False
        return Gst.PadProbeReturn.DROP

    def shifted(self, packet):
        """A copy whose RTP timestamp, bytes 4 to 8, is `shift` later."""
        content = bytearray(packet.extract_dup(0, packet.get_size()))
        stamp = int.from_bytes(content[4:8], "big") + self.shift
        content[4:8] = (stamp % (1 << 32)).to_bytes(4, "big")
        copy = Gst.Buffer.new_wrapped(bytes(content))
        copy.pts = packet.pts
        return copy

    def paint(self, pictures, damage, painter, over):
        """Paint at the camera's rate until the last viewer has gone."""
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            with self.lock:
                if damage is not None:
                    damage.set_property("probability", self.damage)
                self.held.append(self.next_picture(pictures, painter))
                if not self.stalled:
                    self.send(pictures)
            # A machine that was busy does not make up for it.
            due = max(due + 1 / self.fps, time.monotonic() - 1.0)

    def next_picture(self, pictures, painter):
        now = time.time() if self.options["wall_clock"] else time.monotonic()
        buffer = Gst.Buffer.new_wrapped(painter.picture(self.number, round(now * 1000)))
        self.number += 1
        # Not `get_current_running_time`: for a moment, before the base time is set, that is the
        # time since the machine started, and the server would wait until then.
        clock, base = pictures.get_clock(), pictures.get_base_time()
        buffer.pts = max(0, clock.get_time() - base) if clock and base else 0
        return buffer

    def send(self, pictures):
        while self.held:
            pictures.emit("push-buffer", self.held.popleft())


class Cameras:
    """The server, its mounts, and the commands."""

    def __init__(self, port, user=None, password=None, method="basic"):
        self.mounts = {}
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.set_service(port)
        if user is not None:
            self.server.set_auth(self.guard(user, password, method))

    def listen(self):
        """Take connections from now on."""
        if not self.server.attach(None):
            raise OSError("cannot listen on this port")

    def secure(self, certificate, key):
        """Speak TLS, with a certificate and its key from these files."""
        auth = self.server.get_auth()
        if auth is None:
            auth, anyone = GstRtspServer.RTSPAuth(), viewer()
            auth.set_default_token(anyone)
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(certificate, key))
        self.server.set_auth(auth)

    def guard(self, user, password, method):
        auth, token = GstRtspServer.RTSPAuth(), viewer()
        if method == "digest":
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, password, token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        return auth

    def add(self, path, **options):
        mount = self.mounts[path] = Mount(options)
        self.server.get_mount_points().add_factory(f"/{path}", mount.factory)

    def remove(self, path):
        """From now on it is not found; who watches, goes on watching."""
        self.server.get_mount_points().remove_factory(f"/{path}")

    def change(self, path, **options):
        """Whoever connects from now on finds another picture."""
        mount = self.mounts[path]
        mount.options.update(options)
        mount.apply()

    def hang_up(self):
        """Close every connection, as a camera that restarts."""
        self.server.client_filter(lambda _server, _client: GstRtspServer.RTSPFilterResult.REMOVE)

    def stall(self, path):
        """Send nothing more; connections stay open and answer."""
        self.mounts[path].stalled = True

    def resume(self, path, burst):
        """Send again; with `burst` first all that was painted meanwhile."""
        mount = self.mounts[path]
        with mount.lock:
            if not burst:
                mount.held.clear()
            mount.stalled = False

    def rate(self, path, fps):
        """Paint that many pictures a second, whatever was announced."""
        self.mounts[path].fps = fps

    def harm(self, path, damage, loss):
        """Overwrite bytes of the coded picture, lose packets: shares of all, 0 to 1."""
        self.mounts[path].damage, self.mounts[path].loss = damage, loss

    def jump(self, path, seconds):
        """Shift all timestamps from now on."""
        self.mounts[path].shift += int(seconds * RTP_RATE)

    def painted(self, path):
        """How many pictures were painted so far."""
        return self.mounts[path].number


def viewer():
    """Who may see everything."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    return token


COMMANDS = (
    *(
        "listen",
        "secure",
        "add",
        "remove",
        "change",
        "hang_up",
        "stall",
        "resume",
        "rate",
        "harm",
        "jump",
        "painted",
    ),
)


def obey(cameras, line, loop):
    """Carry out one command and answer it."""
    if not line:
        loop.quit()
        return
    command = json.loads(line)
    try:
        name = command.pop("do")
        if name not in COMMANDS:
            raise ValueError(f"no such command: {name}")
        answer = {"answer": getattr(cameras, name)(**command)}
    except Exception as error:  # the test that gave the command is told, whatever it was
        answer = {"error": f"{type(error).__name__}: {error}"}
    say(answer)


def say(answer):
    """Write one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def listen(cameras, loop):
    """Hand each line of the input to the main loop; an empty one is the end."""
    line = "-"
    while line:
        line = sys.stdin.readline()
        GLib.idle_add(obey, cameras, line, loop)


def main():
    Gst.init(None)
    loop = GLib.MainLoop()
    cameras = Cameras(*sys.argv[1:])
    threading.Thread(target=listen, args=(cameras, loop), daemon=True).start()
    say({"ready": True})
    loop.run()


if __name__ == "__main__":
    main()
