//! etcd, kube-apiserver and kube-controller-manager: real ones, found on the machine or built once.

pub mod binaries;
pub mod flags;
pub mod private;

pub use binaries::Binaries;
pub use private::ControlPlane;
