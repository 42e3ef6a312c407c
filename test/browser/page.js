// What a page of another origin does with the API: loaded by page.html, called by the test.

/** The API as a page calls it, with the headers that tracing and frameworks add. */
async function api(url, key, method, path, body) {
  const headers = {
    Authorization: `Bearer ${key}`,
    "X-Requested-With": "XMLHttpRequest",
    "Cache-Control": "no-cache",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Idempotency-Key": crypto.randomUUID(),
  };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  return { status: response.status, requestId: response.headers.get("X-Request-Id"), json: await response.json() };
}

/** Each client PUTs a file to a signed URL with its own defaults, and throws if that fails. */
const clients = {
  async fetch(url, file) {
    const response = await fetch(url, { method: "PUT", body: file });
    if (!response.ok) throw new Error(await response.text());
  },
  xhr: (url, file) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      let progress = 0;
      request.upload.onprogress = () => {
        progress++;
      };
      request.onload = () => {
        if (request.status !== 200 || progress === 0) reject(new Error(`${request.status}, ${progress} steps`));
        else resolve(undefined);
      };
      request.onerror = () => reject(new Error("the request failed"));
      request.open("PUT", url);
      request.setRequestHeader("X-Requested-With", "XMLHttpRequest");
      request.send(file);
    }),
  uppyAwsS3: (url, file) =>
    upload(new Uppy.Uppy().use(Uppy.AwsS3, { shouldUseMultipart: false, signRequest: async () => ({ url }) }), file),
  // A PUT to a signed URL has an empty response, as S3's has; this client asks for JSON unless it is told otherwise.
  uppyXhr(url, file) {
    const options = { endpoint: url, method: "PUT", formData: false, getResponseData: () => ({ url }) };
    return upload(new Uppy.Uppy().use(Uppy.XHRUpload, options), file);
  },
  dropzone: (url, file) =>
    new Promise((resolve, reject) => {
      const element = document.body.appendChild(document.createElement("div"));
      const dropzone = new Dropzone(element, { url, method: "PUT", binaryBody: true });
      dropzone.on("success", resolve);
      dropzone.on("error", (_, message) => reject(new Error(JSON.stringify(message))));
      dropzone.addFile(file);
    }),
  axios: (url, file) => axios.put(url, file),
};

async function upload(uppy, file) {
  uppy.addFile({ name: file.name, type: file.type, data: file });
  const { failed } = await uppy.upload();
  if (failed.length > 0) throw new Error(String(failed[0].error));
}

/** A file's whole life; returns what the page saw. */
globalThis.life = async ({ url, key, workspaceId, client, text }) => {
  const call = (...args) => api(url, key, ...args);
  const created = await call("POST", "/api/v1/uploads", { filename: "a.txt", category: "file" });
  const { upload, upload_url: uploadUrl } = created.json.data;
  await clients[client](uploadUrl, new File([text], "a.txt", { type: "text/plain" }));
  const context = { context_type: "workspace", context_id: workspaceId };
  const confirmed = await call("POST", `/api/v1/uploads/${upload.id}`, context);
  const listed = await call("GET", "/api/v1/uploads?filename=a.txt");
  const download = await fetch(confirmed.json.data.download_url, { headers: { Range: "bytes=1-3" } });
  const part = await download.text();
  const deleted = await call("DELETE", `/api/v1/uploads/${upload.id}`);
  return {
    statuses: [created, confirmed, listed, download, deleted].map(({ status }) => status),
    requestId: created.requestId,
    sizeBytes: confirmed.json.data.size_bytes,
    total: listed.json.pagination.total,
    part,
    // Readable only if the response exposes them.
    contentRange: download.headers.get("Content-Range"),
    acceptRanges: download.headers.get("Accept-Ranges"),
  };
};

/** Mistakes that a page must be able to read, instead of a bare failure. */
globalThis.mistakes = async ({ url, key }) => {
  const typo = await api(url, key, "POST", "/api/v1/upload", {});
  const method = await api(url, key, "PUT", "/api/v1/uploads", {});
  return [typo, method].map(({ status, json }) => [status, json.error.code]);
};
