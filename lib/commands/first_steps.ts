import { hostInUrl } from "../addresses.ts";
import type { Config } from "../config/config.ts";

/** The text that `init` prints: the key, and lines to paste that take a first file through its life. */
export function firstSteps(config: Config, made: { workspaceId: string; apiKey: string }): string {
  const url = config.publicUrl ?? `http://${hostInUrl(config.host)}:${config.port}`;
  return `Created the workspace ${made.workspaceId} and this API key. The key is shown only now:

  ${made.apiKey}

To try it, paste this into another terminal once the server runs:

  URL=${url}
  KEY=${made.apiKey}
  WORKSPACE=${made.workspaceId}
  echo "Hello from Stowage" > hello.txt

  # Create an upload; take its id and its upload URL from the response
  UPLOAD=$(curl -sS "$URL/api/v1/uploads" -H "Authorization: Bearer $KEY" \\
    -H "Content-Type: application/json" \\
    -d '{"filename":"hello.txt","category":"file","size_bytes":'"$(wc -c < hello.txt)"'}')
  ID=$(printf %s "$UPLOAD" | sed 's/.*"upload":{"id":"\\([^"]*\\)".*/\\1/')
  PUT_URL=$(printf %s "$UPLOAD" | sed 's/.*"upload_url":"\\([^"]*\\)".*/\\1/')

  # Send the bytes, confirm, delete
  curl -sS -T hello.txt "$PUT_URL"
  curl -sS "$URL/api/v1/uploads/$ID" -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
    -d "{\\"context_type\\":\\"workspace\\",\\"context_id\\":\\"$WORKSPACE\\"}"
  curl -sS -X DELETE "$URL/api/v1/uploads/$ID" -H "Authorization: Bearer $KEY"
`;
}
