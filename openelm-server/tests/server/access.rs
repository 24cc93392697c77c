//! Keys, hosts and origins.

use openelm_server::ApiKeys;
use openelm_testing::TempDir;
use serde_json::Value;

use crate::running::{Running, load, start, start_on, start_with};

#[test]
fn a_key_is_needed_but_for_the_health() {
    let folder = TempDir::new();
    folder.write("keys", "sesame\nother\n");
    let keys = ApiKeys::read(&folder.join("keys")).unwrap();
    let server = start_with(load(), |options| options.api_keys = keys);
    for (headers, status) in [
        (vec![], 401),
        (vec![("Authorization", "Bearer sesam")], 401),
        (vec![("Authorization", "Bearer ")], 401),
        (vec![("Authorization", "Basic sesame")], 401),
        (vec![("Authorization", "é")], 401),
        (vec![("Authorization", "Bearer sesame")], 200),
        (vec![("authorization", "bearer other")], 200),
    ] {
        for path in ["/v1/models", "/metrics", "/tokenizer_info"] {
            let response = server.ask("GET", path, &headers, b"");
            assert_eq!(response.status, status, "{path} {headers:?}");
            if status == 401 {
                let error = &response.json()["error"];
                assert_eq!(error["code"], "invalid_api_key");
                assert_eq!(error["type"], "authentication_error");
                assert!(!response.body.contains("sesam"));
                assert_eq!(response.header("www-authenticate"), Some("Bearer"));
            }
        }
        let response = server.ask("POST", "/v1/completions", &headers, b"{}");
        assert_eq!(response.status, if status == 200 { 400 } else { 401 });
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/unknown").status, 401);
}

#[test]
fn names_of_other_machines_are_refused() {
    let server = start();
    for (host, status) in [
        ("localhost", 200),
        (&*server.address, 200),
        ("[::1]:80", 200),
        ("attacker.example", 403),
        ("127.0.0.1.attacker.example:8080", 403),
        ("", 403),
    ] {
        let response = server.ask("GET", "/v1/models", &[("Host", host)], b"");
        assert_eq!(response.status, status, "{host}");
    }
}

#[test]
fn a_name_that_leads_to_a_public_server_is_no_origin_of_its_own() {
    let folder = TempDir::new();
    folder.write("keys", "sesame");
    let keys = ApiKeys::read(&folder.join("keys")).unwrap();
    let model = load();
    let asked = |server: &Running, host: &str, origin: Option<&str>| {
        let key = ("Authorization", "Bearer sesame");
        let origin = origin.map(|origin| ("Origin", origin));
        let headers: Vec<_> = [Some(("Host", host)), Some(key), origin]
            .into_iter()
            .flatten()
            .collect();
        server.ask("GET", "/v1/models", &headers, b"").status
    };
    let name = "attacker.example:8080";
    let page = Some("http://attacker.example:8080");
    let open = start_on("0.0.0.0", model.clone(), |_| {});
    assert_eq!(asked(&open, name, page), 403);
    // Programs send no origin, and an address cannot be resolved anew.
    assert_eq!(asked(&open, name, None), 200);
    assert_eq!(asked(&open, "10.0.0.1:80", Some("http://10.0.0.1:80")), 200);
    let allowed = start_on("0.0.0.0", model.clone(), |options| {
        options.allowed_origins = vec!["http://attacker.example:8080".into()];
    });
    assert_eq!(asked(&allowed, name, page), 200);
    // The page does not have the key.
    let with_keys = start_on("0.0.0.0", model, |options| options.api_keys = keys);
    assert_eq!(asked(&with_keys, name, page), 200);
}

#[test]
fn pages_of_other_origins_are_refused_unless_allowed() {
    let own = |server: &Running| format!("http://{}", server.address);
    let server = start();
    let origin = own(&server);
    let ask = |server: &Running, method: &str, origin: &str| {
        let headers = [
            ("Host", &*server.address),
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type",
            ),
        ];
        server.ask(method, "/v1/completions", &headers, b"{}")
    };
    let allowed = |response: &crate::client::Response| {
        let header = response.header("access-control-allow-origin");
        header.map(str::to_owned)
    };
    for other in ["https://attacker.example", "null", "http://localhost:1"] {
        for method in ["POST", "OPTIONS"] {
            let response = ask(&server, method, other);
            assert_eq!(response.status, 403, "{other}");
            assert_eq!(allowed(&response), None);
            let message = response.json()["error"]["message"].clone();
            assert!(matches!(message, Value::String(_)));
        }
    }
    // The server's own page.
    assert_eq!(ask(&server, "POST", &origin).status, 400);
    drop(server);

    let server = start_with(load(), |options| {
        options.allowed_origins = vec!["https://app.example".into()];
    });
    // A proxy may pass the name of its origin on.
    for (host, status) in [("app.example", 200), ("other.example", 403)] {
        let response = server.ask("GET", "/v1/models", &[("Host", host)], b"");
        assert_eq!(response.status, status, "{host}");
    }
    let response = ask(&server, "OPTIONS", "https://app.example");
    assert_eq!(response.status, 204);
    assert_eq!(allowed(&response).as_deref(), Some("https://app.example"));
    let names = response.header("access-control-allow-headers");
    assert_eq!(names, Some("authorization,content-type"));
    let response = ask(&server, "POST", "https://app.example");
    assert_eq!(response.status, 400);
    assert_eq!(allowed(&response).as_deref(), Some("https://app.example"));
    assert_eq!(ask(&server, "POST", "https://other.example").status, 403);
}
