// Moving pictures: frames of a webcam or a video file, one at a time, the newest when the last one is answered.

const LONGEST = 1280;

function release(video) {
  video.pause();
  video.srcObject?.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
}

export class Frames {
  // `show` is given a canvas with the frame and its jpeg, and awaited before the next frame is taken.
  constructor(show, ended) {
    this.show = show;
    this.ended = ended;
    this.video = null;
  }

  async webcam() {
    if (!navigator.mediaDevices) {
      throw new Error("browsers give a webcam only to pages of this machine, or that come by https");
    }
    await this.#start(async (video) => {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: LONGEST } } });
    }, "webcam");
  }

  async file(blob, name) {
    await this.#start((video) => {
      video.src = URL.createObjectURL(blob);
    }, name);
  }

  // Whether it rests now.
  pause() {
    if (!this.video) return false;
    if (this.video.paused) this.video.play().catch(() => {}); // it was stopped before it went on
    else this.video.pause();
    return this.video.paused;
  }

  stop() {
    if (this.video) release(this.video);
    this.video = null;
  }

  async #start(feed, name) {
    this.stop();
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    this.video = video;
    try {
      await feed(video); // a person may take long to allow a webcam, and stop it before
      if (this.video === video) await video.play();
    } catch (error) {
      if (this.video !== video) return; // nobody waits for it any more
      this.stop();
      throw error;
    } finally {
      if (this.video !== video) release(video);
    }
    if (this.video === video) this.#loop(video, name);
  }

  async #loop(video, name) {
    const canvas = document.createElement("canvas");
    let last = -1;
    while (this.video === video) {
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
