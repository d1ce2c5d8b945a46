//! Requests of http's, while they are there.

use core::marker::PhantomData;
use core::ptr::NonNull;

use ngx::ffi::{ngx_connection_t, ngx_event_t, ngx_http_core_loc_conf_t, ngx_http_request_t};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule, Request};

/// A request that nginx does not free within `'a`: whoever finalizes it hands it over for that.
pub struct Live<'a>(NonNull<ngx_http_request_t>, PhantomData<&'a mut ngx_http_request_t>);

impl<'a> Live<'a> {
    /// None for null.
    ///
    /// # Safety
    /// `r` is null, or a request that is there within `'a`, or until it is finalized.
    pub unsafe fn from_ptr(r: *mut ngx_http_request_t) -> Option<Live<'a>> {
        NonNull::new(r).map(|r| Live(r, PhantomData))
    }

    /// A request that a content handler has.
    pub fn of(request: &'a mut Request) -> Live<'a> {
        Live(NonNull::from(request.as_mut()), PhantomData)
    }

    /// The C pointer.
    pub fn as_ptr(&self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    /// As the crate `ngx` has it.
    pub fn request(&mut self) -> &mut Request {
        // SAFETY: the request is there, and borrowed as a whole.
        unsafe { Request::from_ngx_http_request(self.as_ptr()) }
    }

    /// Its connection, which is there as long as the request.
    pub fn connection(&self) -> *mut ngx_connection_t {
        // SAFETY: the request is there.
        unsafe { (*self.as_ptr()).connection }
    }

    /// The event of its connection by which nginx writes.
    pub fn write_event(&self) -> *mut ngx_event_t {
        // SAFETY: a connection that is open has both events.
        unsafe { (*self.connection()).write }
    }

    /// Whether nginx has something that the client does not take yet.
    pub fn is_blocked(&self) -> bool {
        // SAFETY: the connection is there, and has both events.
        unsafe { (*self.connection()).buffered() != 0 || (*self.write_event()).delayed() != 0 }
    }

    /// The core module's configuration of its location.
    pub fn location(&self) -> Option<&ngx_http_core_loc_conf_t> {
        // SAFETY: the request is there.
        NgxHttpCoreModule::location_conf(unsafe { self.0.as_ref() })
    }
}
