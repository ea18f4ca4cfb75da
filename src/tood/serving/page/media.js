// Moving pictures: frames of a webcam or a video file, one at a time, the newest when the last one is answered.

const LONGEST = 1280;

export class Frames {
  // `show` is given a canvas with the frame and its jpeg, and awaited before the next frame is taken.
  constructor(show, ended) {
    this.show = show;
    this.ended = ended;
    this.video = null;
    this.running = false;
  }

  async webcam() {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: LONGEST } } });
    await this.#start((video) => {
      video.srcObject = stream;
    }, "webcam");
  }

  async file(blob, name) {
    const address = URL.createObjectURL(blob);
    await this.#start((video) => {
      video.src = address;
    }, name);
  }

  pause() {
    if (this.video.paused) this.video.play();
    else this.video.pause();
    return this.video.paused;
  }

  stop() {
    this.running = false;
    if (!this.video) return;
    this.video.pause();
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video = null;
  }

  async #start(feed, name) {
    this.stop();
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    feed(video);
    this.video = video;
    await video.play();
    this.running = true;
    this.#loop(video, name);
  }

  async #loop(video, name) {
    const canvas = document.createElement("canvas");
    let last = -1;
    while (this.running && this.video === video) {
      if (video.ended) break;
      if (video.currentTime === last || !video.videoWidth) {
        await new Promise(requestAnimationFrame);
        continue;
      }
      last = video.currentTime;
      const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = Math.round(video.videoWidth * scale);
      canvas.height = Math.round(video.videoHeight * scale);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
      await this.show(canvas, blob, `${name}, ${last.toFixed(2)} s`);
    }
    if (this.video === video) {
      this.stop();
      this.ended();
    }
  }
}
