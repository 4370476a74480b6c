/** The frame around every page: navigation, language, theme, connection. */
import { Component, Fragment, lazy, type ReactNode, Suspense, useEffect, useSyncExternalStore } from "react";
import { currentSession, findSession, isSignedOut, may, signOut, watchSession } from "./api/session";
import { useSystemFeed } from "./live/systemFeed";
import { HomePage } from "./pages/Home";
import { SignInPage } from "./pages/SignIn";
import { Link, useRoute } from "./router";
import { chooseTheme, currentTheme, themeChanged } from "./theme";
import { chooseLanguage, currentLanguage, type Language, LANGUAGES, t, watchLanguage } from "./texts";
import { Button, LinkButton, Page } from "./ui/basics";

/* The start page comes with the first load, every other page when it is opened. */
const ChatPage = lazy(async () => ({ default: (await import("./pages/Chat")).ChatPage }));
const ComparePage = lazy(async () => ({ default: (await import("./pages/Compare")).ComparePage }));
const FilesPage = lazy(async () => ({ default: (await import("./pages/Files")).FilesPage }));
const NewPipelinePage = lazy(async () => ({ default: (await import("./pages/NewPipeline")).NewPipelinePage }));
const NewRunPage = lazy(async () => ({ default: (await import("./pages/NewRun")).NewRunPage }));
const PipelinePage = lazy(async () => ({ default: (await import("./pages/Pipeline")).PipelinePage }));
const RunPage = lazy(async () => ({ default: (await import("./pages/Run")).RunPage }));
const RunsPage = lazy(async () => ({ default: (await import("./pages/Runs")).RunsPage }));
const SystemPage = lazy(async () => ({ default: (await import("./pages/System")).SystemPage }));

/** A key that may only talk to models gets the chat and nothing else. */
const nav = () => [
  ...(may("read") ? [
    { to: "/", label: t.app.home, rooms: [undefined, "pipelines"] },
    { to: "/runs", label: t.app.runs, rooms: ["runs", "compare"] },
    { to: "/files", label: t.app.files, rooms: ["files"] },
  ] : []),
  ...(may("infer") ? [{ to: "/chat", label: t.app.chat, rooms: ["chat"] }] : []),
  ...(may("read") ? [{ to: "/system", label: t.app.system, rooms: ["system"] }] : []),
];

/** The dashboard, or the question for a key. */
export function App() {
  const signedOut = useSyncExternalStore(watchSession, isSignedOut);
  const language = useSyncExternalStore(watchLanguage, currentLanguage);
  useEffect(() => void findSession().catch(() => undefined), []); // a service that is away is said elsewhere
  // another language is another page: everything is drawn anew
  return <Fragment key={language}>{signedOut ? <SignInPage /> : <Dashboard />}</Fragment>;
}

function Dashboard() {
  const session = useSyncExternalStore(watchSession, currentSession);
  const { parts, query } = useRoute();
  const status = useSystemFeed();
  const here = nav().find(({ rooms }) => rooms.includes(parts[0]));

  useEffect(() => {
    document.title = here && here.to !== "/" ? `${here.label} · ${t.app.name}` : t.app.name;
  }, [here?.to, here?.label]);

  return (
    <>
      <a href="#content" className="sr-only focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-20 focus:bg-card focus:p-2">
        {t.app.skip}
      </a>
      <header className="sticky top-0 z-10 border-b border-line bg-card">
        <div className="mx-auto flex h-12 max-w-7xl items-center gap-1 px-3 sm:gap-2 sm:px-6">
          <Link to="/" aria-label={t.app.name} className="mr-1 flex items-center gap-2 font-semibold tracking-tight sm:mr-4">
            <svg aria-hidden viewBox="0 0 32 32" className="size-6 text-accent">
              <path d="M6 7c6 13 12 15 20 17" fill="none" stroke="currentColor" strokeWidth="3.5" strokeLinecap="round" />
              <circle cx="26" cy="24" r="3.4" fill="currentColor" />
            </svg>
            <span className="hidden sm:inline">{t.app.name}</span>
          </Link>
          <nav aria-label={t.app.nav} className="flex h-full min-w-0 overflow-x-auto overflow-y-hidden [scrollbar-width:none]">
            {nav().map(({ to, label }) => (
              <Link
                key={to}
                to={to}
                aria-current={here?.to === to ? "page" : undefined}
                className="flex items-center border-b-2 border-transparent px-1 whitespace-nowrap min-[24rem]:px-1.5 text-soft hover:text-ink aria-[current]:border-accent aria-[current]:text-ink sm:px-3"
              >
                {label}
              </Link>
            ))}
          </nav>
          <div className="ml-auto flex shrink-0 items-center gap-2">
            {session && <Button look="bare" onClick={() => void signOut()}>{t.signIn.out}</Button>}
            <LanguageChoice />
            <ThemeToggle />
          </div>
        </div>
        {status === "reconnecting" && (
          <p role="status" className="border-t border-warn/50 bg-card px-3 py-1 text-center text-warn">
            {t.app.offline}
          </p>
        )}
      </header>
      <main id="content" tabIndex={-1} className="mx-auto max-w-7xl px-3 py-4 outline-none sm:px-6 sm:py-6">
        <Guard key={parts.join("/")}>
          <Suspense fallback={<p className="text-soft">{t.app.loading}</p>}>{page(parts, query)}</Suspense>
        </Guard>
      </main>
    </>
  );
}

function page(parts: string[], query: URLSearchParams): ReactNode {
  const [room, id] = parts;
  if (room === "chat" || !may("read")) return <ChatPage wanted={query.get("model")} beside={query.get("beside")} />;
  if (room === undefined) return <HomePage />;
  if (room === "runs" && id === "new") return <NewRunPage query={query} />;
  if (room === "runs") return id ? <RunPage runId={id} /> : <RunsPage />;
  if (room === "compare") return <ComparePage query={query} />;
  if (room === "pipelines" && id === "new") return <NewPipelinePage query={query} />;
  if (room === "pipelines" && id) return <PipelinePage pipelineId={id} />;
  if (room === "system") return <SystemPage />;
  if (room === "files") return <FilesPage />;
  return (
    <Page title={t.app.notFound}>
      <LinkButton to="/" className="self-start">
        {t.app.goHome}
      </LinkButton>
    </Page>
  );
}

/** One button is enough for two languages: it carries the name of the other one. */
function LanguageChoice() {
  const other: Language = currentLanguage() === "en" ? "zh" : "en";
  return (
    <button
      type="button"
      lang={other}
      onClick={() => void chooseLanguage(other)}
      className="rounded-md px-2 py-1 text-soft hover:bg-well hover:text-ink"
    >
      {LANGUAGES[other]}
    </button>
  );
}

function ThemeToggle() {
  const theme = useSyncExternalStore(themeChanged, currentTheme);
  const other = theme === "dark" ? "light" : "dark";
  const label = theme === "dark" ? t.app.themeLight : t.app.themeDark;
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      onClick={() => chooseTheme(other)}
      className="flex size-8 items-center justify-center rounded-md text-soft hover:bg-well hover:text-ink"
    >
      <svg aria-hidden viewBox="0 0 20 20" className="size-4" fill="none" stroke="currentColor" strokeWidth="1.6">
        {theme === "dark" ? (
          <>
            <circle cx="10" cy="10" r="3.6" />
            <path d="M10 1.5v2M10 16.500v2M1.500 10h2M16.500 10h2M4 4l1.400 1.400M14.600 14.600L16 16M4 16l1.400-1.400M14.600 5.400L16 4" strokeLinecap="round" />
          </>
        ) : (
          <path d="M16.500 12.200A7 7 0 0 1 7.800 3.500a7 7 0 1 0 8.700 8.700z" strokeLinejoin="round" />
        )}
      </svg>
    </button>
  );
}

/** A page that throws leaves the navigation usable. */
class Guard extends Component<{ children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };
  static getDerivedStateFromError() {
    return { broken: true };
  }
  override render() {
    return this.state.broken ? <p role="alert">{t.app.brokePage}</p> : this.props.children;
  }
}
