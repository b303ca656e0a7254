/** What infra/console-bundle.ts makes of `edge/console/`: built with the Worker, never committed. */
declare module "*/dist/console.js" {
  export const CONSOLE_FILES: Readonly<
    Record<
      "console.js" | "style.css" | "icon.svg",
      { readonly type: string; readonly body: string; readonly etag: string }
    >
  >;
}
