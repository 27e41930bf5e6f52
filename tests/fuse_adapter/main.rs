//! The FUSE adapter on a real mount, over a manager in memory: every call that applications make.

mod fake;
#[path = "../support/mod.rs"]
mod support;

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fake::Fake;
use tokio::runtime::Runtime;
use venus::fuse::{self, Mounted, Options, mount::Farewell};

/// A mount of the fake that goes away with the test.
struct World {
    fake: Arc<Fake>,
    mounted: Option<Mounted>,
    at: PathBuf,
    passthrough: bool,
    _runtime: Runtime,
    _room: tempfile::TempDir,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            let farewell = mounted.unmount(Duration::from_secs(2)).expect("the mount goes away");
            if !std::thread::panicking() {
                assert_eq!(farewell, Farewell::Clean);
            }
        }
    }
}

fn world_with(change: impl FnOnce(&mut Options)) -> Option<World> {
    support::can_mount().then_some(())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let room = tempfile::tempdir().unwrap();
    let (containers, at) = (room.path().join("containers"), room.path().join("coda"));
    fs::create_dir(&containers).unwrap();
    fs::create_dir(&at).unwrap();
    let fake = Arc::new(Fake::new(containers));
    let mut options = Options::at(&at);
    change(&mut options);
    let mounted = fuse::mount(fake.clone(), runtime.handle().clone(), &options).expect("mounts");
    Some(World {
        fake,
        mounted: Some(mounted),
        at,
        passthrough: options.passthrough,
        _runtime: runtime,
        _room: room,
    })
}

/// Runs a story on both ways of reaching contents: by the kernel itself, and through venus.
fn both_ways(story: impl Fn(&World)) {
    for passthrough in [true, false] {
        let Some(world) = world_with(|options| options.passthrough = passthrough) else { return };
        story(&world);
    }
}

fn code<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().expect("a system call failed"),
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn sys(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

#[test]
fn a_file_is_written_stored_at_close_and_read_again() {
    both_ways(|world| {
        fs::write(world.path("a"), "hello").unwrap();
        assert_eq!(world.fake.stored(), [(b"a".to_vec(), 5)]);
        assert_eq!(fs::read(world.path("a")).unwrap(), b"hello");
        assert_eq!(fs::metadata(world.path("a")).unwrap().len(), 5);
    });
}

#[test]
fn a_large_file_comes_back_byte_for_byte() {
    both_ways(|world| {
        let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(world.path("big"), &big).unwrap();
        assert!(fs::read(world.path("big")).unwrap() == big);
        let file = File::open(world.path("big")).unwrap();
        let mut piece = [0; 1000];
        file.read_exact_at(&mut piece, 1_234_567).unwrap();
        assert_eq!(piece, big[1_234_567..1_235_567]);
    });
}

#[test]
fn the_kernel_moves_the_bytes_of_large_files_itself_where_venus_is_privileged() {
    both_ways(|world| {
        let by_itself = world.passthrough && fuse::mount::is_privileged();
        fs::write(world.path("big"), vec![1; 200_000]).unwrap();
        assert_eq!(fs::read(world.path("big")).unwrap().len(), 200_000);
        assert_eq!(world.fake.transfers() == 0, by_itself);
    });
}

#[test]
fn appends_go_to_the_end_and_truncating_opens_empty_the_file() {
    both_ways(|world| {
        fs::write(world.path("log"), "one\n").unwrap();
        let mut log = OpenOptions::new().append(true).open(world.path("log")).unwrap();
        log.write_all(b"two\n").unwrap();
        log.write_all(b"three\n").unwrap();
        drop(log);
        assert_eq!(fs::read_to_string(world.path("log")).unwrap(), "one\ntwo\nthree\n");
        drop(OpenOptions::new().write(true).truncate(true).open(world.path("log")).unwrap());
        assert_eq!(fs::metadata(world.path("log")).unwrap().len(), 0);
        let file = OpenOptions::new().read(true).write(true).open(world.path("log")).unwrap();
        file.set_len(100).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100);
        assert_eq!(fs::read(world.path("log")).unwrap(), [0; 100]);
    });
}

#[test]
fn what_a_mapping_changes_is_stored_also_after_the_close() {
    both_ways(|world| {
        fs::write(world.path("m"), vec![b'.'; 8192]).unwrap();
        let before = world.fake.stored().len();
        let file = OpenOptions::new().read(true).write(true).open(world.path("m")).unwrap();
        // SAFETY: maps a file of two pages, touches both within bounds, unmaps.
        unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            let page = libc::mmap(std::ptr::null_mut(), 8192, access, kind, file.as_raw_fd(), 0);
            assert_ne!(page, libc::MAP_FAILED);
            drop(file);
            // A release that comes with the close, and not with the end of the mapping, is done by then.
            std::thread::sleep(Duration::from_millis(200));
            let bytes = std::slice::from_raw_parts_mut(page.cast::<u8>(), 8192);
            assert_eq!(bytes[8191], b'.');
            bytes[0] = b'A';
            bytes[5000] = b'B';
            assert_eq!(libc::msync(page, 8192, libc::MS_SYNC), 0);
            libc::munmap(page, 8192);
        }
        support::soon("the release stores it", || world.fake.stored().len() > before);
        let bytes = fs::read(world.path("m")).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[5000]), (b'A', b'.', b'B'));
    });
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    both_ways(|world| {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(world.path("gone")).unwrap();
        file.write_all(b"still here").unwrap();
        fs::remove_file(world.path("gone")).unwrap();
        assert_eq!(code(fs::metadata(world.path("gone"))), libc::ENOENT);
        assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().nlink()), (10, 0));
        file.write_all(b", really").unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here, really");
    });
}

#[test]
fn names_move_within_and_across_directories() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::create_dir(world.path("d")).unwrap();
    fs::write(world.path("a"), "a").unwrap();
    fs::write(world.path("b"), "b").unwrap();
    fs::rename(world.path("a"), world.path("d/a")).unwrap();
    fs::rename(world.path("b"), world.path("d/a")).unwrap();
    assert_eq!(fs::read_to_string(world.path("d/a")).unwrap(), "b");
    assert_eq!(code(fs::remove_dir(world.path("d"))), libc::ENOTEMPTY);

    fs::write(world.path("c"), "c").unwrap();
    let rename = |flags: u32| {
        let (from, to) = (c(&world.path("c")), c(&world.path("d/a")));
        // SAFETY: both strings live through the call.
        let result =
            unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
        code(sys(result))
    };
    assert_eq!(rename(libc::RENAME_NOREPLACE), libc::EEXIST);
    assert_eq!(rename(libc::RENAME_EXCHANGE), libc::EINVAL);
    assert_eq!(rename(0), 0);
    assert_eq!(fs::read_to_string(world.path("d/a")).unwrap(), "c");
}

#[test]
fn links_symbolic_and_hard() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("file"), "text").unwrap();
    std::os::unix::fs::symlink("file", world.path("soft")).unwrap();
    assert_eq!(fs::read_link(world.path("soft")).unwrap(), Path::new("file"));
    assert_eq!(fs::read_to_string(world.path("soft")).unwrap(), "text");
    fs::hard_link(world.path("file"), world.path("hard")).unwrap();
    let (one, other) = (fs::metadata(world.path("file")).unwrap(), fs::metadata(world.path("hard")).unwrap());
    assert_eq!((one.ino(), other.nlink()), (other.ino(), 2));
    fs::create_dir(world.path("d")).unwrap();
    assert_eq!(code(fs::hard_link(world.path("file"), world.path("d/no"))), libc::EXDEV);
}

#[test]
fn modes_owners_and_times_are_kept_but_never_set_user_id() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("f"), "").unwrap();
    fs::set_permissions(world.path("f"), fs::Permissions::from_mode(0o6750)).unwrap();
    assert_eq!(fs::metadata(world.path("f")).unwrap().mode() & 0o7777, 0o750);
    let times = [
        libc::timespec { tv_sec: 5, tv_nsec: 0 },
        libc::timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
    ];
    let path = c(&world.path("f"));
    // SAFETY: the string and both times live through the call.
    sys(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) }).unwrap();
    let meta = fs::metadata(world.path("f")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!((meta.atime(), meta.atime_nsec()), (5, 0));
    let changed = (meta.ctime(), meta.ctime_nsec());
    std::os::unix::fs::chown(world.path("f"), Some(12), Some(34)).unwrap();
    let meta = fs::metadata(world.path("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (12, 34));
    assert!((meta.ctime(), meta.ctime_nsec()) > changed);
}

#[test]
fn ten_thousand_names_are_listed_once_each_while_half_of_them_are_removed() {
    let Some(world) = world_with(|_| {}) else { return };
    let dir = world.path("many");
    fs::create_dir(&dir).unwrap();
    for n in 0..10_000 {
        fs::write(dir.join(format!("file-{n:05}")), "").unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for line in fs::read_dir(&dir).unwrap() {
        let line = line.unwrap();
        let number: u32 = line.file_name().to_str().unwrap()[5..].parse().unwrap();
        assert!(seen.insert(number), "{number} is listed twice");
        if number.is_multiple_of(2) {
            fs::remove_file(line.path()).unwrap();
        }
    }
    assert_eq!(seen.len(), 10_000);
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|line| line.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5_000);
    let inode = |line: &fs::DirEntry| std::os::unix::fs::DirEntryExt::ino(line);
    let first = fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
    assert_eq!(inode(&first), first.metadata().unwrap().ino());
}

#[test]
fn extended_attributes_of_users_are_kept_and_others_refused() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("f"), "").unwrap();
    let path = c(&world.path("f"));
    let set = |name: &str, value: &[u8], flags| {
        let name = CString::new(name).unwrap();
        // SAFETY: all pointers live through the call, and the length is the value's.
        sys(unsafe {
            libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
        })
    };
    let get = |name: &str, room: usize| {
        let (name, mut value) = (CString::new(name).unwrap(), vec![0_u8; room]);
        // SAFETY: as above.
        let size =
            sys(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) }
                as i64)?;
        value.truncate(size as usize);
        Ok::<_, io::Error>((size, value))
    };
    set("user.colour", b"green", 0).unwrap();
    assert_eq!(get("user.colour", 100).unwrap(), (5, b"green".to_vec()));
    assert_eq!(get("user.colour", 0).unwrap().0, 5);
    assert_eq!(code(get("user.colour", 2)), libc::ERANGE);
    assert_eq!(code(set("user.colour", b"red", libc::XATTR_CREATE)), libc::EEXIST);
    assert_eq!(code(set("user.size", b"red", libc::XATTR_REPLACE)), libc::ENODATA);
    assert_eq!(code(set("system.x", b"1", 0)), libc::EOPNOTSUPP);
    assert_eq!(code(get("user.size", 9)), libc::ENODATA);
    let mut list = vec![0_u8; 100];
    // SAFETY: as above.
    let size = sys(unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), 100) } as i64).unwrap();
    assert_eq!(&list[..size as usize], b"user.colour\0");
    let name = CString::new("user.colour").unwrap();
    // SAFETY: as above.
    sys(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).unwrap();
    assert_eq!(code(get("user.colour", 9)), libc::ENODATA);
}

#[test]
fn locks_hold_between_descriptors_of_this_machine() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("lock"), "").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(world.path("lock")).unwrap();
    let (one, other) = (open(), open());
    let flock = |file: &File, how| {
        // SAFETY: a plain system call on an open descriptor.
        code(sys(unsafe { libc::flock(file.as_raw_fd(), how) }))
    };
    assert_eq!(flock(&one, libc::LOCK_EX), 0);
    assert_eq!(flock(&other, libc::LOCK_EX | libc::LOCK_NB), libc::EWOULDBLOCK);
    assert_eq!(flock(&one, libc::LOCK_UN), 0);
    assert_eq!(flock(&other, libc::LOCK_EX | libc::LOCK_NB), 0);
    assert_eq!(flock(&other, libc::LOCK_UN), 0);
    // Open file description locks: as fcntl locks, but between descriptors of one process, too.
    let range = |file: &File, kind| {
        // SAFETY: the lock is plain data that lives through the call.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (kind as i16, 10);
            code(sys(libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock)))
        }
    };
    assert_eq!(range(&one, libc::F_WRLCK), 0);
    assert_eq!(range(&other, libc::F_WRLCK), libc::EAGAIN);
    assert_eq!(range(&one, libc::F_UNLCK), 0);
    assert_eq!(range(&other, libc::F_WRLCK), 0);
}

#[test]
fn holes_are_made_found_and_read_as_zeros() {
    both_ways(|world| {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(world.path("s"));
        let file = file.unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        let seek = |offset, whence| {
            // SAFETY: a plain system call on an open descriptor.
            sys(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }).unwrap()
        };
        assert_eq!(seek(0, libc::SEEK_HOLE), 0);
        assert_eq!(seek(0, libc::SEEK_DATA), 1 << 20);
        let mut byte = [1];
        file.read_exact_at(&mut byte, 4321).unwrap();
        assert_eq!(byte, [0]);

        let allocate = |mode, offset, length| {
            // SAFETY: a plain system call on an open descriptor.
            code(sys(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) }))
        };
        assert_eq!(allocate(0, 0, 2 << 20), 0);
        assert_eq!(file.metadata().unwrap().len(), 2 << 20);
        file.write_all_at(&[7; 65536], 0).unwrap();
        assert_eq!(allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 4096, 8192), 0);
        let mut bytes = [1; 3];
        file.read_exact_at(&mut bytes, 4095).unwrap();
        assert_eq!(bytes, [7, 0, 0]);
    });
}

#[test]
fn ranges_are_copied_inside() {
    both_ways(|world| {
        fs::write(world.path("from"), "0123456789").unwrap();
        fs::write(world.path("to"), "abcdefghij").unwrap();
        let from = File::open(world.path("from")).unwrap();
        let to = OpenOptions::new().read(true).write(true).open(world.path("to")).unwrap();
        let (mut read_at, mut write_at) = (2, 8);
        // SAFETY: both offsets live through the call.
        let copied = unsafe {
            libc::copy_file_range(from.as_raw_fd(), &mut read_at, to.as_raw_fd(), &mut write_at, 5, 0)
        };
        assert_eq!(copied, 5);
        drop(to);
        assert_eq!(fs::read_to_string(world.path("to")).unwrap(), "abcdefgh23456");
    });
}

#[test]
fn direct_io_works() {
    both_ways(|world| {
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        let open = |write: bool| {
            let mut options = OpenOptions::new();
            options.read(true).write(write).create(write).custom_flags(libc::O_DIRECT);
            options.open(world.path("direct")).unwrap()
        };
        let page = Box::new(Page([42; 4096]));
        open(true).write_all_at(&page.0, 4096).unwrap();
        let mut back = Box::new(Page([0; 4096]));
        open(false).read_exact_at(&mut back.0, 4096).unwrap();
        assert!(back.0 == page.0);
        assert_eq!(fs::metadata(world.path("direct")).unwrap().len(), 8192);
    });
}

#[test]
fn space_is_told_and_names_are_limited_to_255_bytes() {
    let Some(world) = world_with(|_| {}) else { return };
    // SAFETY: plain data that the call fills.
    let told = unsafe {
        let mut told: libc::statfs = std::mem::zeroed();
        sys(libc::statfs(c(&world.at).as_ptr(), &mut told)).unwrap();
        told
    };
    assert_eq!((told.f_bsize, told.f_blocks, told.f_bfree, told.f_namelen), (4096, 1 << 18, 1 << 17, 255));
    fs::write(world.path(&"n".repeat(255)), "").unwrap();
    assert_eq!(code(fs::write(world.path(&"n".repeat(256)), "")), libc::ENAMETOOLONG);
}

#[test]
fn access_is_the_managers_and_device_nodes_are_refused() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("f"), "").unwrap();
    fs::set_permissions(world.path("f"), fs::Permissions::from_mode(0o400)).unwrap();
    let path = c(&world.path("f"));
    // SAFETY: the string lives through the calls.
    unsafe {
        assert_eq!(code(sys(libc::access(path.as_ptr(), libc::R_OK))), 0);
        assert_eq!(code(sys(libc::access(path.as_ptr(), libc::W_OK))), libc::EACCES);
        let fifo = c(&world.path("fifo"));
        assert_eq!(code(sys(libc::mkfifo(fifo.as_ptr(), 0o644))), libc::EPERM);
        let plain = c(&world.path("plain"));
        assert_eq!(code(sys(libc::mknod(plain.as_ptr(), libc::S_IFREG | 0o640, 0))), 0);
    }
    assert_eq!(fs::metadata(world.path("plain")).unwrap().mode(), libc::S_IFREG | 0o640);
}

#[test]
fn a_slow_answer_stops_nobody_and_a_panic_is_an_error() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("slow-file"), "at last").unwrap();
    assert_eq!(fs::read_to_string(world.path("slow-file")).unwrap(), "at last");
    assert_eq!(code(fs::metadata(world.path("panic"))), libc::EIO);
    assert_eq!(fs::read_to_string(world.path("slow-file")).unwrap(), "at last");
}

#[test]
fn warm_stats_do_not_reach_the_manager_and_missing_names_neither() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("f"), "").unwrap();
    support::soon("attributes settle after the release", || {
        let before = world.fake.asked();
        fs::metadata(world.path("f")).unwrap();
        let _ = fs::metadata(world.path("missing")).unwrap_err();
        world.fake.asked() == before
    });
}

#[test]
fn a_shared_mount_asks_for_everybody() {
    if !fuse::mount::is_privileged() {
        return eprintln!("skipped: only the privileged may share a mount without /etc/fuse.conf");
    }
    let Some(world) = world_with(|options| options.shared = true) else { return };
    fs::write(world.path("f"), "").unwrap();
    let before = world.fake.asked();
    for _ in 0..10 {
        fs::metadata(world.path("f")).unwrap();
    }
    let after = world.fake.asked();
    assert!(after.0 + after.1 >= before.0 + before.1 + 10);
}

#[test]
fn a_new_version_shows_although_attributes_last() {
    both_ways(|world| {
        fs::write(world.path("f"), "old").unwrap();
        assert_eq!(fs::read_to_string(world.path("f")).unwrap(), "old");
        world.fake.replace("f", b"newer");
        support::soon("the new size shows", || fs::metadata(world.path("f")).unwrap().len() == 5);
        assert_eq!(fs::read_to_string(world.path("f")).unwrap(), "newer");
    });
}

#[test]
fn a_new_version_of_an_open_file_gets_a_number_of_its_own() {
    both_ways(|world| {
        for size in [3, 100_000] {
            let (old, new) = (vec![b'o'; size], vec![b'n'; size + 2]);
            fs::write(world.path("f"), &old).unwrap();
            let mut reader = File::open(world.path("f")).unwrap();
            world.fake.replace("f", &new);
            support::soon("the new version shows", || {
                fs::metadata(world.path("f")).unwrap().len() == size as u64 + 2
            });
            assert!(fs::read(world.path("f")).unwrap() == new);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert!(bytes == old, "who opened before reads what was");
            assert_eq!(reader.metadata().unwrap().len(), size as u64);
            assert_ne!(reader.metadata().unwrap().ino(), fs::metadata(world.path("f")).unwrap().ino());
        }
    });
}

#[test]
fn a_version_that_arrives_unannounced_is_opened_under_a_new_number() {
    both_ways(|world| {
        fs::write(world.path("f"), "old").unwrap();
        let mut reader = File::open(world.path("f")).unwrap();
        world.fake.replace("f", b"newer");
        // At once: the notice may not have come yet, and the open must work all the same.
        assert_eq!(fs::read_to_string(world.path("f")).unwrap(), "newer");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
    });
}

#[test]
fn names_bound_and_removed_elsewhere_show() {
    let Some(world) = world_with(|_| {}) else { return };
    fs::write(world.path("f"), "").unwrap();
    assert!(fs::metadata(world.path("g")).is_err());
    world.fake.rebind("g", Some("f"));
    support::soon("a name made elsewhere shows", || fs::metadata(world.path("g")).is_ok());
    world.fake.rebind("f", None);
    support::soon("a name removed elsewhere is gone", || fs::metadata(world.path("f")).is_err());
}

#[test]
fn nobody_inside_is_a_clean_end_and_somebody_inside_is_named() {
    let Some(mut world) = world_with(|_| {}) else { return };
    fs::create_dir(world.path("d")).unwrap();
    let mut sleeper =
        std::process::Command::new("sleep").arg("60").current_dir(world.path("d")).spawn().unwrap();
    let mounted = world.mounted.take().unwrap();
    let farewell = mounted.unmount(Duration::from_millis(200)).unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let Farewell::Detached { inside } = farewell else { panic!("somebody was inside") };
    assert!(inside.contains(&(sleeper.id(), "sleep".into())), "{inside:?}");
    assert!(fs::read_dir(&world.at).unwrap().next().is_none());
}

/// A helper with the privilege of this process, for one question after the other.
#[allow(clippy::disallowed_methods)] // The other side of a socket that blocks.
fn helper_at(socket: &Path, at: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let options = Options::at(at);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            fuse::helper::serve(stream, &options).unwrap();
        }
    });
}

#[test]
fn a_helper_mounts_and_unmounts_for_a_venus_that_may_not() {
    // SAFETY: reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let socket = room.path().join("mount.sock");
    let Some(world) = world_with(|options| {
        helper_at(&socket, &options.at);
        (options.helper, options.passthrough) = (Some(socket.clone()), false);
    }) else {
        return;
    };
    fs::write(world.path("f"), "by the helper's hand").unwrap();
    assert_eq!(fs::read_to_string(world.path("f")).unwrap(), "by the helper's hand");
    // Whoever is inside keeps it from going, and is named.
    let inside = File::open(world.path("f")).unwrap();
    let at = world.at.clone();
    let mut world = world;
    let farewell = world.mounted.take().unwrap().unmount(Duration::from_millis(200)).unwrap();
    assert!(matches!(farewell, Farewell::Detached { .. }), "{farewell:?}");
    drop(inside);
    assert!(fs::read_dir(&at).unwrap().next().is_none(), "nothing covers the directory any more");
}
