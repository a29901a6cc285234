/// Defines `fn name(level, args)` that runs the generic kernel `imp::<S>` for
/// the instruction set `level`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $imp:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(level: $crate::simd::SimdLevel, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                unsafe { $imp::<$crate::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                unsafe { $imp::<$crate::simd::Avx2>($($arg),*) }
            }
            match level {
                #[cfg(target_arch = "x86_64")]
                $crate::simd::SimdLevel::Avx512 | $crate::simd::SimdLevel::Avx512Bf16 => unsafe {
                    avx512($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                $crate::simd::SimdLevel::Avx2 => unsafe { avx2($($arg),*) },
                _ => unsafe { $imp::<$crate::simd::Portable>($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

/// Defines a function as [`dispatch`] does, for a kernel that calls [`Simd::dot_bf16`].
macro_rules! dispatch_bf16 {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $imp:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(level: $crate::simd::SimdLevel, $($arg: $ty),*) {
            $crate::simd::dispatch! { unsafe fn emulated($($arg: $ty),*) = $imp }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn native($($arg: $ty),*) {
                unsafe { $imp::<$crate::simd::Avx512<true>>($($arg),*) }
            }
            match level {
                #[cfg(target_arch = "x86_64")]
                $crate::simd::SimdLevel::Avx512Bf16 => unsafe { native($($arg),*) },
                _ => unsafe { emulated(level, $($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch_bf16;
