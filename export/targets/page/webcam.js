// The webcam, frame after frame, each as soon as the one before it is done.

// What went wrong, by the name of the browser's error.
const REASONS = {
  NotFoundError: "there is no webcam; plug one in, or choose an image",
  NotAllowedError: "the browser was not allowed to use the webcam; allow it in the address bar, or choose an image",
  NotReadableError: "the webcam is in use by another program; close that, or choose an image",
};
// The weight of the past in the mean time between frames and in the ends of the colours, which would flicker otherwise.
const MEMORY = 0.9;

export class Webcam {
  constructor() {
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.session = null; // of a start until its stop, {stream}
  }

  // Calls `predict(video)` for frame after frame until `stop`; `show(predicted, framesPerSecond)` with what it gives.
  async start(predict, show) {
    if (!navigator.mediaDevices) throw new Error("browsers give the webcam to https and localhost pages alone; serve this page so, or choose an image");
    const { video } = this;
    const session = (this.session = { stream: null });
    const ended = () => this.session !== session;
    try {
      session.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (ended()) return stopTracks(session); // while the browser was asking its user
      video.srcObject = session.stream;
      await video.play();
    } catch (error) {
      if (ended()) return;
      throw new Error(REASONS[error.name] ?? `the webcam cannot be opened (${error.message}); choose an image`);
    }
    let ends, between_ms, before_ms = performance.now();
    while (!ended()) {
      const predicted = await predict(video);
      if (ended()) break;
      ends = ends ? { low: mean(ends.low, predicted.low), high: mean(ends.high, predicted.high) } : predicted;
      const now_ms = performance.now();
      between_ms = between_ms ? mean(between_ms, now_ms - before_ms) : now_ms - before_ms;
      before_ms = now_ms;
      show({ ...predicted, low: ends.low, high: ends.high }, 1000 / between_ms);
      await new Promise(requestAnimationFrame);
    }
  }

  stop() {
    stopTracks(this.session);
    this.session = this.video.srcObject = null;
  }
}

function stopTracks(session) {
  session?.stream?.getTracks().forEach((track) => track.stop());
}

function mean(before, now) {
  return MEMORY * before + (1 - MEMORY) * now;
}
