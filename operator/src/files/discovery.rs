//! What clients, and the API server, are told of the group: which resources there are, and an OpenAPI document without paths, so that nobody
//! asks for one in vain.

use nearbrick_crds::files::{API_VERSION, GROUP, Subject, VERSION};
use serde_json::{Value, json};

/// The answer for such a path, if it is one of these.
pub fn document(path: &str) -> Option<Value> {
    let path = path.trim_end_matches('/');
    let versions = json!([{ "groupVersion": API_VERSION, "version": VERSION }]);
    let group = |envelope: Value| -> Value {
        let mut group = json!({
            "name": GROUP, "versions": versions,
            "preferredVersion": { "groupVersion": API_VERSION, "version": VERSION },
        });
        if let (Some(group), Some(more)) = (group.as_object_mut(), envelope.as_object()) {
            group.extend(more.clone());
        }
        group
    };
    let own = format!("/apis/{API_VERSION}");
    let info = json!({ "title": "Nearbrick files", "version": VERSION });
    Some(match path {
        "/apis" => json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group(json!({}))] }),
        "/openapi/v2" => json!({ "swagger": "2.0", "info": info, "paths": {}, "definitions": {} }),
        "/openapi/v3" => {
            let name = own.trim_start_matches('/');
            json!({ "paths": { name: { "serverRelativeURL": format!("/openapi/v3{own}?hash={VERSION}") } } })
        }
        "/version" => {
            json!({ "major": "1", "minor": "0", "gitVersion": format!("v{}", env!("CARGO_PKG_VERSION")) })
        }
        path if path == own => resources(),
        path if path == format!("/apis/{GROUP}") => group(json!({ "kind": "APIGroup", "apiVersion": "v1" })),
        path if path == format!("/openapi/v3{own}") => {
            json!({ "openapi": "3.0.0", "info": info, "paths": {}, "components": { "schemas": {} } })
        }
        _ => return None,
    })
}

/// All are below a volume. The volume itself is of another group, and is not listed: names would be of two kinds otherwise.
fn resources() -> Value {
    let all = Subject::ALL.map(|subject| {
        json!({
            "name": format!("workstationvolumes/{}", subject.as_str()), "singularName": "", "namespaced": true,
            "kind": subject.kind(), "verbs": [subject.verb()],
        })
    });
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": all })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIGroupList, APIResourceList};

    use super::*;

    #[test]
    fn documents_are_what_kubernetes_takes() {
        let of = |path: &str| document(path).unwrap();
        let list: APIResourceList = serde_json::from_value(of("/apis/files.nearbrick.io/v1alpha1")).unwrap();
        assert!(list.resources.iter().any(|r| r.name == "workstationvolumes/pending" && r.verbs == ["get"]));
        assert!(
            list.resources.iter().any(|r| r.name == "workstationvolumes/restore" && r.verbs == ["create"])
        );
        let group: APIGroup = serde_json::from_value(of("/apis/files.nearbrick.io/")).unwrap();
        assert_eq!(group.name, GROUP);
        let groups: APIGroupList = serde_json::from_value(of("/apis")).unwrap();
        assert_eq!(groups.groups.len(), 1);
        for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/files.nearbrick.io/v1alpha1", "/version"]
        {
            assert!(of(path).is_object(), "{path}");
        }
        assert_eq!(document("/metrics"), None);
    }
}
