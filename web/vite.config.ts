import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const service = process.env.NANOCHAT_URL ?? "http://127.0.0.1:8000";
const routes = ["/runs", "/pipelines", "/stages", "/configs", "/checkpoints", "/evaluations", "/files", "/workers", "/system", "/v1", "/session", "/login", "/logout"];

// The bundle is committed and must come out byte for byte the same on every machine.
export default defineConfig({
  base: "/ui/",
  plugins: [react(), tailwindcss()],
  build: { outDir: "../server/static", emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } },
  server: { proxy: Object.fromEntries(routes.map((path) => [path, { target: service, ws: true }])) },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
