-- Current migration status
SELECT
    TABLE_NAME,
    STATUS,
    COUNT(*) as chunks,
    SUM(SOURCE_COUNT) as total_source,
    SUM(SUCCESS_COUNT) as total_success,
    SUM(FAILED_COUNT) as total_failed,
    ROUND(SUM(SUCCESS_COUNT) / NULLIF(SUM(SOURCE_COUNT), 0) * 100, 2) as success_rate,
    MIN(START_TIME) as started,
    MAX(END_TIME) as last_update
FROM MIGRATION_AUDIT_LOG
WHERE BATCH_ID = :current_batch_id
GROUP BY TABLE_NAME, STATUS
ORDER BY TABLE_NAME;
