//! Headless Chromium, spoken to by its DevTools protocol over a pipe: JSON, each message with a NUL at its end.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::ByteString;
use nearbrick_e2e::kube_api;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one page; it ends with this value.
pub struct Browser {
    _child: Child,
    _profile: tempfile::TempDir,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What the page wrote to its console, and errors of its script.
    pub complaints: Vec<String>,
}

/// What a screen is like.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Its width in CSS pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether it is a phone's.
    pub phone: bool,
    /// Whether its person wants it dark.
    pub dark: bool,
}

impl Browser {
    /// Starts one with an empty page.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Descriptors 3 and 4 are the pipe.
        let script = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>"$0""#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(profile.path().join("stderr"))
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--disable-lcd-text",
            ])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self {
            _child: child,
            _profile: profile,
            input,
            output,
            session: None,
            last: 0,
            complaints: vec![],
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// What it answers to a method of the protocol.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let answer = tokio::time::timeout(LIMIT, async {
            self.input.write_all(&bytes).await.unwrap();
            loop {
                let mut frame = vec![];
                self.output.read_until(0, &mut frame).await.unwrap();
                assert_eq!(frame.pop(), Some(0), "the browser is gone");
                let said: Value = serde_json::from_slice(&frame).unwrap();
                if said["id"] == self.last {
                    return said;
                }
                self.note(&said);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no answer to {method}"));
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    fn note(&mut self, event: &Value) {
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => {
                self.complaints.push(event["params"].to_string());
            }
            Some("Log.entryAdded") if event["params"]["entry"]["level"] == "error" => {
                self.complaints.push(event["params"]["entry"].to_string());
            }
            _ => {}
        }
    }

    async fn evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let said = self.call("Runtime.evaluate", params).await;
        if said["exceptionDetails"].is_null() {
            return Ok(said["result"]["value"].clone());
        }
        Err(format!("{expression}: {}", said["exceptionDetails"]))
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        self.evaluate(expression).await.unwrap()
    }

    /// Waits until an expression is true. One that fails, as while a page is loaded, is not.
    pub async fn until(&mut self, what: &str, expression: &str) {
        let page = tokio::sync::Mutex::new(self);
        kube_api::eventually(what, LIMIT, || async {
            let mut page = page.lock().await;
            match page.evaluate(expression).await? {
                Value::Bool(true) => Ok(()),
                other => {
                    Err(format!("{expression} is {other}; {}", page.value("document.body.innerText").await))
                }
            }
        })
        .await
        .unwrap();
    }

    /// Shows the page on such a screen from now on.
    pub async fn on(&mut self, screen: Screen) {
        let Screen { width, height, phone, dark } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// Goes to an address.
    pub async fn open(&mut self, address: &str) {
        let said = self.call("Page.navigate", json!({ "url": address })).await;
        assert!(said["errorText"].is_null(), "{address}: {said}");
    }

    /// Presses a key and lets it go.
    pub async fn press(&mut self, key: &str, code: u32, text: Option<&str>) {
        let mut down = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Writes a text where the focus is.
    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// The page as PNG: so many rows from this one on.
    pub async fn picture(&mut self, screen: Screen, from: u32, rows: u32) -> Vec<u8> {
        let clip = json!({ "x": 0, "y": from, "width": screen.width, "height": rows, "scale": 1 });
        let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let said = self.call("Page.captureScreenshot", params).await;
        let ByteString(bytes) = serde_json::from_value(said["data"].clone()).unwrap();
        bytes
    }
}
