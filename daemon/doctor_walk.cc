#include "daemon/doctor_walk.h"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/multiple_exceptions.hpp>
#include <exception>
#include <utility>

#include "cache/escape.h"
#include "cache/image.h"
#include "daemon/doctor_mends.h"
#include "daemon/doctor_recorder.h"
#include "daemon/platform.h"
#include "daemon/terminal.h"
#include "proxy/auth/identities.h"
#include "proxy/manifests.h"
#include "proxy/reference.h"
#include "proxy/upstream_entries.h"

namespace staithe::daemon {

namespace {

using proxy::IdentityKind;
using proxy::auth::Part;

constexpr std::size_t most_manifest_bytes = 4 * 1024 * 1024;
// Entra refuses proofs beyond five minutes; tokens of an hour are short of a minute before.
constexpr std::chrono::seconds clock_is_wrong{300};
constexpr std::chrono::seconds clock_is_off{60};

bool is_of_entra(IdentityKind kind) {
  switch (kind) {
    case IdentityKind::managed_identity:
    case IdentityKind::service_principal:
    case IdentityKind::workload_identity:
    case IdentityKind::token:
      return true;
    default:
      return false;
  }
}

void ignore_report(std::string_view, std::string_view) {}

}  // namespace

DoctorStep clock_step(std::chrono::seconds ahead, const std::string& server) {
  const auto off = std::chrono::abs(ahead);
  DoctorStep step{.step = "clock"};
  if (off < clock_is_off) {
    step.finding = "this machine's clock agrees with " + server + " to within a minute";
    return step;
  }
  step.state = off >= clock_is_wrong ? StepState::failed : StepState::warning;
  step.finding = "this machine's clock is " + show_seconds(static_cast<double>(off.count())) +
                 (ahead.count() > 0 ? " ahead of " : " behind ") + server +
                 ": certificates and tokens are taken for not yet good, or for ended";
  step.mend = "timedatectl set-ntp true, and see with timedatectl timesync-status that it is kept";
  return step;
}

// One registry's walk, with what it has so far. Its background work ends before it does.
class DoctorWalk::Session {
 public:
  Session(DoctorWalk& walk, std::string name, std::string repository, std::string reference,
          Tell tell)
      : walk_(walk),
        recorder_(walk.sources_.http, walk.sources_.clock, most_requests),
        tasks_(walk.sources_.loop, ignore_report),
        name_(std::move(name)),
        repository_(std::move(repository)),
        reference_(std::move(reference)),
        tell_(std::move(tell)) {}

  asio::awaitable<void> end() {
    upstream_.reset();
    tasks_.cancel();
    co_await tasks_.join();
  }

  asio::awaitable<void> open(proxy::RegistryPtr registry);
  asio::awaitable<void> mirrors(const proxy::Registry& registry);
  asio::awaitable<void> credentials();
  asio::awaitable<void> content();
  asio::awaitable<void> clock();

 private:
  // What a probe came to.
  struct Try {
    std::string learnt = {};
    std::optional<Error> error = {};
    std::chrono::nanoseconds took{0};
    std::size_t first = 0;  // of its requests, in the recorder
  };
  static asio::awaitable<void> into(asio::awaitable<std::string> work, Try& result);
  asio::awaitable<Try> attempt(asio::awaitable<std::string> work);
  // Tells of it; true if the step is well.
  asio::awaitable<bool> tell(std::string step, Try result);
  // The same for what the registry may have redirected.
  asio::awaitable<bool> tell_of_content(std::string step, Try result);
  asio::awaitable<void> skip(std::string step, std::string why);
  asio::awaitable<void> identity();
  asio::awaitable<std::string> fetch_manifest();
  asio::awaitable<cache::Manifest> one_manifest(proxy::Reference reference);
  asio::awaitable<std::string> fetch_byte();
  asio::awaitable<void> choose_image();
  MendFor whose() const;
  bool is_asked_by_us(const DoctorRecorder::Entry& entry) const;

  DoctorWalk& walk_;
  DoctorRecorder recorder_;
  TaskGroup tasks_;
  const std::string name_;
  std::string repository_;  // as the image name has it, then as upstream knows it
  std::string reference_;
  Tell tell_;

  proxy::UpstreamEntry entry_;
  std::string identity_name_;
  proxy::IdentitySettings identity_;
  std::string remark_;  // why nobody is asked, if so
  std::unique_ptr<proxy::Upstream> upstream_;
  bool identity_good_ = false;
  bool challenge_good_ = false;
  bool token_good_ = false;
  std::optional<cache::Descriptor> blob_;
};

MendFor DoctorWalk::Session::whose() const {
  return {
      .registry = name_,
      .upstream = upstream_ ? upstream_->url() : std::string(),
      .host = recorder_.entries().empty() ? std::string() : recorder_.entries().back().origin.host,
      .repository = entry_.settings.prefix + repository_,
      .reference = reference_,
      .identity_name = identity_name_,
      .identity = &identity_,
      .acr_suffixes = &walk_.sources_.config.proxy.azure.acr_suffixes};
}

asio::awaitable<void> DoctorWalk::Session::into(asio::awaitable<std::string> work, Try& result) {
  try {
    result.learnt = co_await std::move(work);
  } catch (const Failure& failure) {
    result.error = failure.error();
  }
}

asio::awaitable<DoctorWalk::Session::Try> DoctorWalk::Session::attempt(
    asio::awaitable<std::string> work) {
  using namespace asio::experimental::awaitable_operators;
  Clock& clock = walk_.sources_.clock;
  const Instant began = clock.now();
  Try result{.first = recorder_.entries().size()};
  try {
    const auto ended = co_await (into(std::move(work), result) || clock.sleep_for(step_time) ||
                                 walk_.stopped_.wait());
    if (ended.index() == 1)
      result.error = Error{Errc::unreachable, "there was no end of it within " +
                                                  std::to_string(step_time.count()) + " s"};
  } catch (const asio::multiple_exceptions& both) {
    std::rethrow_exception(both.first_exception());
  }
  if (walk_.stopping_) throw Failure(Errc::cancelled, "staithed is stopping");
  result.took = clock.now() - began;
  co_return result;
}

asio::awaitable<bool> DoctorWalk::Session::tell(std::string step, Try result) {
  DoctorStep told{.step = std::move(step),
                  .subject = name_,
                  .tried = in_words(recorder_.entries(), result.first),
                  .took = result.took,
                  .finding = result.learnt};
  const bool good = !result.error;
  if (result.error) {
    told.state = StepState::failed;
    told.finding = result.error->detail;
    told.error_class = to_string(result.error->code);
    told.mend = mend_for(told.step, *result.error, whose());
  }
  co_await tell_(std::move(told));
  co_return good;
}

asio::awaitable<bool> DoctorWalk::Session::tell_of_content(std::string step, Try result) {
  if (const auto home = proxy::Url::parse(upstream_->url()))
    recorder_.forget_paths(result.first, home->origin());
  co_return co_await tell(std::move(step), std::move(result));
}

asio::awaitable<void> DoctorWalk::Session::skip(std::string step, std::string why) {
  co_await tell_(DoctorStep{.step = std::move(step),
                            .subject = name_,
                            .state = StepState::skipped,
                            .finding = std::move(why)});
}

// Finds out whom to ask and as whom; says so if the registry is not to be asked.
asio::awaitable<void> DoctorWalk::Session::open(proxy::RegistryPtr registry) {
  if (!repository_.empty()) repository_ = registry->canonical(repository_);
  if (repository_.empty()) co_await choose_image();
  entry_ = registry->entries().back();
  identity_name_ = proxy::identity_for(entry_, repository_);
  const auto& identities = walk_.sources_.config.proxy.identities;
  if (const auto found = identities.find(identity_name_); found != identities.end())
    identity_ = found->second;
  for (const auto& [_, list] : registry->upstreams()) {
    const auto state = list->states().back();
    if (state.paused.count() == 0) continue;
    remark_ = "the registry has asked for a pause";
    co_await tell_(
        DoctorStep{.step = "pause",
                   .subject = name_,
                   .state = StepState::failed,
                   .finding = state.url + " has asked staithed to wait, for " +
                              show_seconds(static_cast<double>(state.paused.count())) + " more" +
                              (state.last_error ? ": " + state.last_error->detail : std::string()),
                   .mend = mend_for("pause", Error{Errc::throttled, {}}, whose()),
                   .error_class = to_string(Errc::throttled)});
    break;
  }
  upstream_ = walk_.sources_.make_upstream(entry_, identity_name_, recorder_, tasks_);
}

// One of those that are cached, by a tag if there is one.
asio::awaitable<void> DoctorWalk::Session::choose_image() {
  const std::string prefix = name_ + "/";
  for (const cache::ListedImage& image : co_await walk_.sources_.store.images()) {
    if (!image.repository.starts_with(prefix)) continue;
    const bool by_tag = image.reference.find(':') == std::string::npos;
    if (!repository_.empty() && !by_tag) continue;
    repository_ = image.repository.substr(prefix.size());
    reference_ = image.reference;
    if (by_tag) co_return;
  }
}

// Pulls go on without a mirror, so what is wrong with one is no failure.
asio::awaitable<void> DoctorWalk::Session::mirrors(const proxy::Registry& registry) {
  const auto& entries = registry.entries();
  for (std::size_t i = 0; i + 1 < entries.size(); ++i) {
    Try result;
    {
      const auto mirror = walk_.sources_.make_upstream(
          entries[i], proxy::identity_for(entries[i], repository_), recorder_, tasks_);
      result = co_await attempt(mirror->authorizer().probe(Part::challenge, {}));
    }
    DoctorStep step{.step = "mirror",
                    .subject = entries[i].url,
                    .tried = in_words(recorder_.entries(), result.first),
                    .took = result.took,
                    .finding = result.learnt};
    if (result.error) {
      MendFor of_mirror = whose();
      of_mirror.upstream = entries[i].url;
      step.state = StepState::warning;
      step.finding = result.error->detail + "; pulls go to the next upstream";
      step.error_class = to_string(result.error->code);
      step.mend = mend_for("challenge", *result.error, of_mirror);
    }
    co_await tell_(std::move(step));
  }
}

// A request to Entra, and not to the identity service of this machine.
bool DoctorWalk::Session::is_asked_by_us(const DoctorRecorder::Entry& entry) const {
  const auto service = proxy::Url::parse(walk_.sources_.config.proxy.azure.imds_endpoint);
  return entry.origin.scheme == "https" && (!service || entry.origin != service->origin());
}

asio::awaitable<void> DoctorWalk::Session::identity() {
  const bool signed_in = identity_name_ == proxy::auth::Identities::signed_in;
  if (!signed_in && identity_.kind == IdentityKind::anonymous) {
    identity_good_ = true;
    co_await tell_(DoctorStep{.step = "identity",
                              .subject = name_,
                              .finding = "anonymous: its [[registry]] names no identity"});
    co_await skip("entra", "anonymous pulls need no Entra token");
    co_return;
  }
  const std::string shown =
      signed_in ? "the sign-in"
                : "[identity." + identity_name_ + "], " + proxy::to_string(identity_.kind);
  Try result = co_await attempt(upstream_->authorizer().probe(Part::identity, {}));
  identity_good_ = !result.error;
  const auto& entries = recorder_.entries();
  std::size_t entra = result.first;  // the first request to it
  while (entra < entries.size() && !is_asked_by_us(entries[entra])) ++entra;
  const bool application = identity_.kind == IdentityKind::service_principal ||
                           identity_.kind == IdentityKind::workload_identity;
  if (!application || entra == entries.size()) {
    if (!result.error) result.learnt = shown + ": " + result.learnt;
    co_await tell("identity", std::move(result));
    co_await skip("entra",
                  application ? "it needs what the identity step could not get"
                  : signed_in || identity_.kind == IdentityKind::token ? "the token was given"
                  : is_of_entra(identity_.kind) ? "the identity service hands out the Entra token"
                                                : "a password needs no Entra token");
    co_return;
  }
  // What came before Entra was asked is the identity's: its file, its certificate, its federation.
  DoctorStep first{.step = "identity", .subject = name_, .finding = shown + ": its proof is there"};
  std::chrono::nanoseconds asked{0};
  for (std::size_t i = entra; i < entries.size(); ++i) asked += entries[i].took;
  first.took = std::max(result.took - asked, std::chrono::nanoseconds(0));
  co_await tell_(std::move(first));
  result.first = entra;
  result.took = asked;
  co_await tell("entra", std::move(result));
}

asio::awaitable<void> DoctorWalk::Session::credentials() {
  co_await identity();
  if (!remark_.empty()) {
    for (const char* step : {"challenge", "exchange", "token"}) co_await skip(step, remark_);
    co_return;
  }
  proxy::auth::Authorizer& authorizer = upstream_->authorizer();
  challenge_good_ =
      co_await tell("challenge", co_await attempt(authorizer.probe(Part::challenge, {})));
  const bool signed_in = identity_name_ == proxy::auth::Identities::signed_in;
  const std::string ground = !challenge_good_  ? "the challenge has failed"
                             : !identity_good_ ? "there is no identity to ask as"
                                               : "";
  bool exchanged = ground.empty();
  if (!ground.empty()) {
    co_await skip("exchange", ground);
  } else if (signed_in || is_of_entra(identity_.kind)) {
    exchanged = co_await tell("exchange", co_await attempt(authorizer.probe(Part::exchange, {})));
  } else {
    co_await skip("exchange", "only Entra tokens are exchanged");
  }
  if (!exchanged) {
    co_await skip("token", ground.empty() ? "the exchange has failed" : ground);
  } else if (repository_.empty()) {
    co_await skip("token", "no image of this registry is cached: name one, staithe doctor " +
                               name_ + "/REPOSITORY:TAG");
  } else {
    token_good_ = co_await tell("token", co_await attempt(authorizer.probe(
                                             Part::access, entry_.settings.prefix + repository_)));
  }
}

asio::awaitable<cache::Manifest> DoctorWalk::Session::one_manifest(proxy::Reference reference) {
  const std::string shown = reference.to_string();
  const auto response = co_await upstream_->send({.method = "GET",
                                                  .repository = repository_,
                                                  .what = "manifests/" + shown,
                                                  .accept = std::string(proxy::accepted_types),
                                                  .patient = false});
  const std::string asked = "manifest " + shown + " of " + name_ + "/" + printable(repository_);
  if (response->status() != 200)
    throw Failure(co_await proxy::error_of(*response, asked, Errc::manifest_unknown));
  std::string body = co_await proxy::read_all(*response, most_manifest_bytes);
  co_return value_or_throw(proxy::check_manifest(response->headers().get("content-type"),
                                                 std::move(body), reference.digest(),
                                                 response->headers().get("docker-content-digest")));
}

asio::awaitable<std::string> DoctorWalk::Session::fetch_manifest() {
  const std::string wanted = reference_.empty() ? "latest" : reference_;
  cache::Manifest manifest = co_await one_manifest(value_or_throw(proxy::Reference::parse(wanted)));
  std::string learnt = "it is " + manifest.digest.to_string();
  if (const auto entries = index_entries(manifest.bytes); !entries.empty()) {
    const Platform own = own_platform();
    const auto taken = chosen(entries, {own});
    if (taken.empty())
      throw Failure(Errc::manifest_unknown, "the image is there for " + platforms_of(entries) +
                                                ", and not for this machine (" + own.to_string() +
                                                ")");
    learnt = "of this index, " + learnt + ", the manifest for " + own.to_string() + " is taken";
    manifest = co_await one_manifest(
        value_or_throw(proxy::Reference::parse(taken.front().digest.to_string())));
  }
  for (const cache::Descriptor& blob : cache::references_of(manifest.bytes).blobs) {
    if (!blob_ || blob.size_bytes.value_or(0) > blob_->size_bytes.value_or(0)) blob_ = blob;
  }
  co_return learnt;
}

asio::awaitable<std::string> DoctorWalk::Session::fetch_byte() {
  const std::size_t first = recorder_.entries().size();
  const std::string digest = blob_->digest.to_string();
  const auto response = co_await upstream_->send({.method = "GET",
                                                  .repository = repository_,
                                                  .what = "blobs/" + digest,
                                                  .range = "bytes=0-0",
                                                  .patient = false});
  if (response->status() != 200 && response->status() != 206)
    throw Failure(co_await proxy::error_of(
        *response, "blob " + digest + " of " + name_ + "/" + printable(repository_),
        Errc::blob_unknown));
  std::vector<char> piece;
  if (!co_await response->read(piece))
    throw Failure(Errc::upstream_nonsense, "blob " + digest + " came without a byte");
  const auto& entries = recorder_.entries();
  const proxy::Origin& home = entries.at(first).origin;
  if (entries.back().origin == home) co_return "the registry sends blobs itself";
  co_return "the registry sends blobs from " + entries.back().origin.to_string();
}

asio::awaitable<void> DoctorWalk::Session::content() {
  if (!token_good_) {
    const std::string why = !remark_.empty()      ? remark_
                            : repository_.empty() ? "no image is known to try with"
                                                  : "there is no token to ask with";
    co_await skip("manifest", why);
    co_await skip("blob-host", why);
    co_return;
  }
  const bool good = co_await tell_of_content("manifest", co_await attempt(fetch_manifest()));
  if (!good || !blob_) {
    co_await skip("blob-host", good ? "the manifest names no blob" : "the manifest has failed");
    co_return;
  }
  co_await tell_of_content("blob-host", co_await attempt(fetch_byte()));
}

// By whoever has proved by TLS who he is; the last of them, whose answer is the newest.
asio::awaitable<void> DoctorWalk::Session::clock() {
  const auto& entries = recorder_.entries();
  const auto told = std::find_if(entries.rbegin(), entries.rend(), [](const auto& entry) {
    return entry.clock_ahead && entry.origin.scheme == "https";
  });
  if (told == entries.rend()) {
    co_await skip("clock", "no server has said what time it is");
    co_return;
  }
  DoctorStep step = clock_step(*told->clock_ahead, told->origin.host);
  step.subject = name_;
  co_await tell_(std::move(step));
}

asio::awaitable<void> DoctorWalk::walk_in(Session& session, proxy::RegistryPtr registry) {
  co_await session.open(registry);
  co_await session.mirrors(*registry);
  co_await session.credentials();
  co_await session.content();
  co_await session.clock();
}

asio::awaitable<void> DoctorWalk::walk(std::string name, std::string repository,
                                       std::string reference, Tell tell) {
  Session session(*this, name, std::move(repository), std::move(reference), tell);
  std::exception_ptr thrown;
  std::optional<Error> failed;
  try {
    co_await walk_in(session, sources_.registries.find(name));
  } catch (const Failure& failure) {
    failed = failure.error();
  } catch (...) {
    thrown = std::current_exception();
  }
  co_await session.end();
  if (thrown) std::rethrow_exception(thrown);
  if (!failed) co_return;
  if (failed->code == Errc::cancelled) throw Failure(*failed);
  // Neither the registry's name nor its identity lead to anybody who could be asked.
  const bool unknown = failed->code == Errc::registry_unknown;
  DoctorStep step{.step = "registry",
                  .subject = printable(name, 150),
                  .state = StepState::failed,
                  .finding = failed->detail,
                  .error_class = to_string(failed->code)};
  step.mend = unknown ? "add a [[registry]] with name = \"" + printable(name, 150) +
                            "\" to staithe.toml, then: staithe reload"
                      : "correct its [[registry]] or its identity in staithe.toml, then: staithe "
                        "reload";
  co_await tell(std::move(step));
}

void DoctorWalk::stop() {
  stopping_ = true;
  stopped_.notify_all();
}

}  // namespace staithe::daemon
