//! Which uses of a volume there are.

use super::types::{Mode, VolumeCapability};

/// How a volume is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// For reading only.
    pub(crate) read_only: bool,
}

/// What a capability asks for. An error says in one line why that cannot be.
///
/// Every mode of access is offered: a volume is shared by nature, and who mounts it where is Kubernetes' part.
pub(crate) fn check(capability: &VolumeCapability) -> Result<Use, String> {
    if capability.block.is_some() {
        return Err("block devices are not offered, a volume is a tree of files: set volumeMode: Filesystem"
            .to_owned());
    }
    let Some(mount) = &capability.mount else {
        return Err("the capability has no access type: ask for a mount".to_owned());
    };
    if !mount.fs_type.is_empty() {
        return Err(format!(
            "a volume has no file system of the type {:?}: leave csi.storage.k8s.io/fstype out of the StorageClass",
            mount.fs_type
        ));
    }
    let mut read_only = false;
    for flag in &mount.mount_flags {
        match flag.as_str() {
            "ro" => read_only = true,
            "rw" => {}
            _ => {
                return Err(format!(
                    "the mount option {flag:?} is not offered, only ro is: take it out of mountOptions"
                ));
            }
        }
    }
    let mode = capability.access_mode.map(|m| m.mode()).unwrap_or_default();
    match mode {
        Mode::Unknown => {
            Err("the capability has no access mode that this driver knows: ask for ReadWriteMany".to_owned())
        }
        Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly => Ok(Use { read_only: true }),
        Mode::SingleNodeWriter | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            Ok(Use { read_only })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{AccessMode, MountVolume, Nothing};
    use super::*;

    fn mount(mode: Mode, flags: &[&str]) -> VolumeCapability {
        let mount_flags = flags.iter().map(|f| (*f).to_owned()).collect();
        VolumeCapability {
            block: None,
            mount: Some(MountVolume { fs_type: String::new(), mount_flags }),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    #[test]
    fn every_mode_of_a_mount_is_offered() {
        for (mode, read_only) in [
            (Mode::SingleNodeWriter, false),
            (Mode::SingleNodeReaderOnly, true),
            (Mode::MultiNodeReaderOnly, true),
            (Mode::MultiNodeSingleWriter, false),
            (Mode::MultiNodeMultiWriter, false),
        ] {
            assert_eq!(check(&mount(mode, &[])), Ok(Use { read_only }), "{mode:?}");
            assert_eq!(check(&mount(mode, &["ro"])), Ok(Use { read_only: true }), "{mode:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut block = mount(Mode::MultiNodeMultiWriter, &[]);
        block.block = Some(Nothing {});
        assert!(check(&block).unwrap_err().contains("volumeMode: Filesystem"));
        let mut none = mount(Mode::MultiNodeMultiWriter, &[]);
        none.mount = None;
        assert!(check(&none).unwrap_err().contains("access type"));
        assert!(check(&mount(Mode::Unknown, &[])).unwrap_err().contains("access mode"));
        assert!(check(&mount(Mode::SingleNodeWriter, &["dax"])).unwrap_err().contains("\"dax\""));
        let mut typed = mount(Mode::SingleNodeWriter, &[]);
        typed.mount.as_mut().unwrap().fs_type = "ext4".to_owned();
        assert!(check(&typed).unwrap_err().contains("\"ext4\""));
        let mut later = mount(Mode::SingleNodeWriter, &[]);
        later.access_mode = Some(AccessMode { mode: 7 });
        assert!(
            check(&later).unwrap_err().contains("access mode"),
            "modes that this driver did not announce"
        );
    }
}
