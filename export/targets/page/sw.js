// Keeps what the page has loaded, so that it works without a network; and adds the headers without which browsers allow no threads.

const CACHE = `depth ${new URL(registration.scope).pathname}`;
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(keepShell());
});
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(isolated(answer(event)));
});

async function keepShell() {
  const cache = await caches.open(CACHE);
  const page = await (await fetch("page.json", { cache: "no-cache" })).json();
  await cache.addAll(page.shell.map((name) => new Request(name, { cache: "no-cache" })));
}

// Large files are asked for with their hash, so that a kept one is the right one. All others are fetched again where there is a network.
async function answer(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  const hashed = new URL(request.url).search !== "";
  if (hashed) {
    const kept = await cache.match(request);
    if (kept) return kept;
  }
  try {
    const fresh = await fetch(request, hashed ? {} : { cache: "no-cache" });
    if (fresh.ok) event.waitUntil(keep(cache, request, fresh.clone()));
    return fresh;
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
}

async function keep(cache, request, response) {
  try {
    await cache.put(request, response);
  } catch {
    return; // no room: the page works, but only with a network
  }
  const { pathname, search } = new URL(request.url);
  for (const other of await cache.keys()) {
    const url = new URL(other.url);
    if (url.pathname === pathname && url.search !== search) await cache.delete(other);
  }
}

async function isolated(answered) {
  const response = await answered;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
