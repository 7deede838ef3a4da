// Owners of OpenSSL's objects, and how its PEM texts are read. No state; any thread.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string_view>

namespace staithe::openssl {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T, auto Free>
using Owner = std::unique_ptr<T, Deleter<Free>>;

using Bio = Owner<BIO, ::BIO_free_all>;
using Certificate = Owner<X509, ::X509_free>;
using Digest = Owner<EVP_MD_CTX, ::EVP_MD_CTX_free>;
using Key = Owner<EVP_PKEY, ::EVP_PKEY_free>;

// For PEM_read_bio_*(); a view into `text`, which outlives it. Null without memory.
inline Bio reader_of(std::string_view text) {
  return Bio(::BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// For PEM_read_bio_*(), which ask the terminal for a password if they are given nothing. `asked`
// may be null or a bool, which becomes true: the key is encrypted.
inline int no_password(char*, int, int, void* asked) {
  if (asked) *static_cast<bool*>(asked) = true;
  return -1;
}

}  // namespace staithe::openssl
