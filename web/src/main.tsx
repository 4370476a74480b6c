import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Problem } from "./api/problems";
import { App } from "./App";
import { startLanguage } from "./texts";
import "./styles.css";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 1000,
      // a refusal stays one however often we ask
      retry: (failures, error) => !(error instanceof Problem && error.status < 500) && failures < 3,
      // on this machine there is no network to be offline from
      networkMode: "always",
    },
    mutations: { networkMode: "always" },
  },
});

// the browser keeps an entry for each request, and a page that is left open asks for days
performance.setResourceTimingBufferSize(0);

void startLanguage().then(() =>
  createRoot(document.getElementById("root") as HTMLElement).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <App />
      </QueryClientProvider>
    </StrictMode>,
  ),
);
