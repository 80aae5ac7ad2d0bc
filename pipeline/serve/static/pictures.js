// All pictures on one connection: a line of JSON, then so many bytes of JPEG, over and over.
// A stream for each source would end at six, which is all that browsers open to one server.

/** Bytes that have arrived and are not read yet. */
class Arrivals {
  constructor(reader) {
    this.reader = reader;
    this.bytes = new Uint8Array(0);
    this.at = 0;
  }

  async more() {
    const { value, done } = await this.reader.read();
    if (done) throw new Error("the stream of pictures has ended");
    const rest = this.bytes.subarray(this.at);
    const joined = new Uint8Array(rest.length + value.length);
    joined.set(rest);
    joined.set(value, rest.length);
    this.bytes = joined;
    this.at = 0;
  }

  async line() {
    let end;
    while ((end = this.bytes.indexOf(10, this.at)) < 0) await this.more();
    const text = new TextDecoder().decode(this.bytes.subarray(this.at, end));
    this.at = end + 1;
    return text;
  }

  async take(count) {
    while (this.bytes.length - this.at < count) await this.more();
    this.at += count;
    return this.bytes.slice(this.at - count, this.at);
  }
}

/** Call show(head, jpeg) with every picture until the signal aborts or the stream ends. */
export async function readPictures(show, signal) {
  const response = await fetch("/pictures", { signal });
  if (!response.ok) throw new Error(`the pictures are refused (${response.status})`);
  const arrivals = new Arrivals(response.body.getReader());
  for (;;) {
    const head = JSON.parse(await arrivals.line());
    const jpeg = await arrivals.take(head.bytes);
    if (head.source !== null) show(head, jpeg);
  }
}

/** Draws the pictures of one source; where it cannot keep up, it leaves out the older ones. */
export class Screen {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.taken = null; // when the picture was taken, on the clock of performance.now()
    this.waiting = null;
    this.drawing = false;
  }

  /** Draw soon. */
  async show(head, jpeg) {
    this.waiting = { jpeg, taken: performance.now() - head.age_seconds * 1000 };
    if (this.drawing) return;
    this.drawing = true;
    while (this.waiting) {
      const { jpeg: bytes, taken } = this.waiting;
      this.waiting = null;
      try {
        this.draw(await createImageBitmap(new Blob([bytes], { type: "image/jpeg" })), taken);
      } catch {
        // A picture that cannot be decoded is left out; the next one is on its way.
      }
    }
    this.drawing = false;
  }

  draw(picture, taken) {
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.pen.drawImage(picture, 0, 0);
    picture.close();
    this.taken = taken;
  }

  /** Seconds since the picture that is shown was taken; null while there is none. */
  age() {
    return this.taken === null ? null : (performance.now() - this.taken) / 1000;
  }
}
