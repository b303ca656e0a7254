/** The entry: what Cloudflare calls, and nothing else. */
import { app } from "./app.ts";

export { Account } from "./accounts/account.ts";
export { Credential } from "./accounts/credential.ts";
export { Directory } from "./accounts/directory.ts";
export { Link } from "./accounts/link.ts";
export { AuditTrail } from "./audit/audit-trail.ts";
export { Client } from "./clients/client.ts";
export { KeyRing } from "./keys/key-ring.ts";
export { BulkRevocation } from "./revocations/bulk-revocation.ts";
export { RevocationLog } from "./revocations/revocation-log.ts";

export default { fetch: app.fetch } satisfies ExportedHandler<Env>;
