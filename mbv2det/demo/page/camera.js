// The camera: one frame after the other, as fast as the network answers.
import { canvasOf } from "./images.js";

const WIDTH = 640; // asked for; a camera may give another

export class Camera {
  #stream;
  #video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

  get running() {
    return this.#stream !== undefined;
  }

  // Calls onFrame with a canvas and waits for it, until `stop`. onEnd: called with the error of a
  // frame, or without one when the camera is unplugged.
  async start(onFrame, onEnd) {
    if (!navigator.mediaDevices) {
      throw new Error("browsers give the camera to pages of https addresses and localhost alone");
    }
    this.#stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: WIDTH } },
    });
    this.#video.srcObject = this.#stream;
    await this.#video.play();
    this.#stream.getVideoTracks()[0].onended = () => onEnd();
    this.#loop(onFrame).catch(onEnd);
  }

  stop() {
    this.#stream?.getTracks().forEach(track => track.stop());
    this.#stream = undefined;
  }

  async #loop(onFrame) {
    const stream = this.#stream;
    while (this.#stream === stream) {
      await new Promise(requestAnimationFrame); // none comes while the page is hidden
      if (this.#stream !== stream) return;
      const frame = canvasOf(this.#video.videoWidth, this.#video.videoHeight);
      frame.getContext("2d", { willReadFrequently: true }).drawImage(this.#video, 0, 0);
      await onFrame(frame);
    }
  }
}

// Frames per second over the last two seconds.
export class FrameRate {
  #times = [];

  tick(now = performance.now()) {
    this.#times.push(now);
    while (this.#times[0] < now - 2000) this.#times.shift();
    const span = now - this.#times[0];
    return span > 0 ? 1000 * (this.#times.length - 1) / span : null;
  }
}
