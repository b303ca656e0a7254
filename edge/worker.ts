/** The entry: what Cloudflare calls, and nothing else. */
import { app } from "./app.ts";

export { Account } from "./account.ts";
export { AuditTrail } from "./audit-trail.ts";
export { BulkRevocation } from "./bulk-revocation.ts";
export { Client } from "./client.ts";
export { Credential } from "./credential.ts";
export { KeyRing } from "./key-ring.ts";
export { Link } from "./link.ts";
export { RevocationLog } from "./revocation-log.ts";

export default { fetch: app.fetch } satisfies ExportedHandler<Env>;
