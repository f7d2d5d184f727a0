// The service worker in front of the page: offline use, and the isolation that threads need. The page works without either.

const WAIT_MS = 5000;

// Resolves when the page may load; where isolation needs it, the page is loaded a second time and this never resolves.
export async function serviceWorker() {
  if (!navigator.serviceWorker) return; // not https, nor localhost
  try {
    await navigator.serviceWorker.register("sw.js");
    await Promise.race([navigator.serviceWorker.ready.then(controlled), new Promise((done) => setTimeout(done, WAIT_MS))]);
  } catch (error) {
    console.warn("without service worker:", error);
    return;
  }
  if (crossOriginIsolated || !navigator.serviceWorker.controller || sessionStorage.getItem("reloaded")) return;
  sessionStorage.setItem("reloaded", "yes");
  // Browsers keep pages that were left, and may come back to this one; while they do, they cannot reload.
  addEventListener("pageshow", ({ persisted }) => persisted && setTimeout(() => location.reload()));
  location.reload();
  await new Promise(() => {});
}

function controlled() {
  if (navigator.serviceWorker.controller) return undefined;
  return new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
}
